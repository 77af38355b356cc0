"""The entries of Captum's own methods, each reduced to one channel as its paper does."""

from __future__ import annotations

from captum_groupcam.attr import (
    ablation_methods,
    deep_lift,
    gradient_methods,
    gradient_shap,
    guided_methods,
    layer_methods,
    lrp,
    region_methods,
    smooth_grad,
)
from captum_groupcam.methods._method import Method

#: Captum's methods that explain images, but ``LayerGradCam``, which is ``grad_cam``.
CAPTUM_METHODS: tuple[Method, ...] = (
    Method(
        "guided_backprop",
        "Guided backpropagation",
        guided_methods.guided_backprop,
        passes=lambda: 1,
    ),
    Method("guided_grad_cam", "Guided Grad-CAM", guided_methods.guided_grad_cam, passes=lambda: 2),
    Method(
        "integrated_gradients",
        "Integrated gradients",
        gradient_methods.integrated_gradients,
        passes=lambda n_steps: n_steps,
    ),
    Method(
        "smooth_grad",
        "SmoothGrad",
        smooth_grad.smooth_grad,
        passes=lambda n_samples: n_samples,
    ),
    Method(
        "input_x_gradient",
        "Input x gradient",
        gradient_methods.input_x_gradient,
        passes=lambda: 1,
    ),
    Method("occlusion", "Occlusion", ablation_methods.occlusion),
    Method("saliency", "Gradients", gradient_methods.saliency, passes=lambda: 1),
    Method("deconvolution", "Deconvolution", guided_methods.deconvolution, passes=lambda: 1),
    # The activations that are used several times are counted in a pass of their own; then input
    # and baseline, once for the gradients and once to see whether they add up.
    Method("deep_lift", "DeepLIFT", deep_lift.deep_lift, passes=lambda: 5),
    Method(
        "gradient_shap",
        "GradientSHAP",
        gradient_shap.gradient_shap,
        passes=lambda n_samples: n_samples,
    ),
    Method("lrp", "LRP", lrp.lrp, passes=lambda: 6),
    Method("feature_ablation", "Feature ablation", ablation_methods.feature_ablation),
    Method("lime", "LIME", region_methods.lime, passes=lambda n_samples: n_samples),
    Method(
        "kernel_shap",
        "Kernel SHAP",
        region_methods.kernel_shap,
        passes=lambda n_samples: n_samples,
    ),
    Method(
        "shapley_value_sampling", "Shapley value sampling", region_methods.shapley_value_sampling
    ),
    Method(
        "layer_gradient_x_activation",
        "Layer gradient x activation",
        layer_methods.layer_gradient_x_activation,
        passes=lambda: 2,
    ),
    Method(
        "internal_influence",
        "Internal influence",
        layer_methods.internal_influence,
        passes=lambda n_steps: n_steps + 1,
    ),
    Method(
        "layer_conductance",
        "Layer conductance",
        layer_methods.layer_conductance,
        # Each part of the path begins where the one before ends.
        passes=lambda n_steps, internal_batch_size: (
            n_steps + 1 + -(-n_steps // (max(internal_batch_size, 2) - 1))
        ),
    ),
)
