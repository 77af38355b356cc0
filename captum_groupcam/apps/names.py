"""Names for the help of commands, which is shown before anything heavy is imported."""

from __future__ import annotations

__all__ = ["OFFERED_METHODS"]

#: What :func:`~captum_groupcam.methods.offered_methods` gives.
OFFERED_METHODS = (
    "group_cam",
    "group_cam_gradient_free",
    "group_cam_selective",
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "layer_cam",
    "x_grad_cam",
    "element_wise_cam",
    "eigen_cam",
    "eigen_grad_cam",
    "kpca_cam",
    "shapley_cam",
    "finer_cam",
    "full_grad",
    "ablation_cam",
    "cam",
    "score_cam",
    "rise",
    "xrai",
    "guided_backprop",
    "guided_grad_cam",
    "integrated_gradients",
    "smooth_grad",
    "input_x_gradient",
    "occlusion",
    "saliency",
    "deconvolution",
    "deep_lift",
    "gradient_shap",
    "lrp",
    "feature_ablation",
    "lime",
    "kernel_shap",
    "shapley_value_sampling",
    "layer_gradient_x_activation",
    "internal_influence",
    "layer_conductance",
    "attention_rollout",
    "le_grad",
)
