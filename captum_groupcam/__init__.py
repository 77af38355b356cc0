"""Group-CAM, and the methods that it is compared with, for Captum."""

from typing import TYPE_CHECKING

from captum_groupcam._lazy import lazy

if TYPE_CHECKING:
    from captum_groupcam.attr.ablation_cam import AblationCAM
    from captum_groupcam.attr.attention_rollout import AttentionRollout
    from captum_groupcam.attr.cam import CAM
    from captum_groupcam.attr.consensus import ConsensusGroupCAM
    from captum_groupcam.attr.eigen_cam import EigenCAM, EigenGradCAM
    from captum_groupcam.attr.element_wise_cam import ElementWiseCAM
    from captum_groupcam.attr.finer_cam import FinerCAM
    from captum_groupcam.attr.full_grad import FullGrad
    from captum_groupcam.attr.grad_cam import GradCAM, GradCAMPlusPlus
    from captum_groupcam.attr.group_cam import GroupCAM
    from captum_groupcam.attr.hires_cam import HiResCAM
    from captum_groupcam.attr.kpca_cam import KPCACAM
    from captum_groupcam.attr.layer_cam import LayerCAM
    from captum_groupcam.attr.le_grad import LeGrad
    from captum_groupcam.attr.rise import RISE
    from captum_groupcam.attr.score_cam import ScoreCAM
    from captum_groupcam.attr.shapley_cam import ShapleyCAM
    from captum_groupcam.attr.x_grad_cam import XGradCAM
    from captum_groupcam.attr.xrai import XRAI

__version__ = "0.1.0"
__all__ = [
    "CAM",
    "KPCACAM",
    "RISE",
    "XRAI",
    "AblationCAM",
    "AttentionRollout",
    "ConsensusGroupCAM",
    "EigenCAM",
    "EigenGradCAM",
    "ElementWiseCAM",
    "FinerCAM",
    "FullGrad",
    "GradCAM",
    "GradCAMPlusPlus",
    "GroupCAM",
    "HiResCAM",
    "LayerCAM",
    "LeGrad",
    "ScoreCAM",
    "ShapleyCAM",
    "XGradCAM",
]

#: Where each name is defined.
_HOMES = {
    "AblationCAM": "attr.ablation_cam",
    "CAM": "attr.cam",
    "RISE": "attr.rise",
    "XRAI": "attr.xrai",
    "AttentionRollout": "attr.attention_rollout",
    "ConsensusGroupCAM": "attr.consensus",
    "EigenCAM": "attr.eigen_cam",
    "EigenGradCAM": "attr.eigen_cam",
    "ElementWiseCAM": "attr.element_wise_cam",
    "FinerCAM": "attr.finer_cam",
    "FullGrad": "attr.full_grad",
    "GradCAM": "attr.grad_cam",
    "GradCAMPlusPlus": "attr.grad_cam",
    "GroupCAM": "attr.group_cam",
    "HiResCAM": "attr.hires_cam",
    "KPCACAM": "attr.kpca_cam",
    "LayerCAM": "attr.layer_cam",
    "LeGrad": "attr.le_grad",
    "ScoreCAM": "attr.score_cam",
    "ShapleyCAM": "attr.shapley_cam",
    "XGradCAM": "attr.x_grad_cam",
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
