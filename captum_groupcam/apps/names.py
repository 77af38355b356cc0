"""Names for the help of commands, which is shown before anything heavy is imported."""

from __future__ import annotations

import sys

__all__ = ["OFFERED_METHODS", "offered_names"]

#: What :func:`~captum_groupcam.methods.offered_methods` gives before others are registered.
OFFERED_METHODS = (
    "group_cam",
    "group_cam_gradient_free",
    "group_cam_consensus",
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


def offered_names() -> list[str]:
    """The methods that are offered now.

    Returns:
        list of str: Those of the registry if that is there, which alone imports what is heavy;
        otherwise nobody has registered others.

    Examples::

        >>> "group_cam" in offered_names()
        True
    """
    registry = sys.modules.get("captum_groupcam.methods")
    return list(OFFERED_METHODS) if registry is None else list(registry.offered_methods())
