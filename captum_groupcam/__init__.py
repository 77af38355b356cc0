"""Group-CAM, and the methods that it is compared with, for Captum."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_groupcam.attr.ablation_cam import AblationCAM
    from captum_groupcam.attr.attention_rollout import AttentionRollout
    from captum_groupcam.attr.cam import CAM
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
    from captum_groupcam.attr.selective import SelectiveGroupCAM
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
    "SelectiveGroupCAM",
    "ShapleyCAM",
    "XGradCAM",
]

#: Where each name is defined. It is imported when it is first asked for: torch and captum take
#: seconds, which ``captum-groupcam --help`` does without.
_HOMES = {
    "AblationCAM": "ablation_cam",
    "CAM": "cam",
    "RISE": "rise",
    "XRAI": "xrai",
    "AttentionRollout": "attention_rollout",
    "EigenCAM": "eigen_cam",
    "EigenGradCAM": "eigen_cam",
    "ElementWiseCAM": "element_wise_cam",
    "FinerCAM": "finer_cam",
    "FullGrad": "full_grad",
    "GradCAM": "grad_cam",
    "GradCAMPlusPlus": "grad_cam",
    "GroupCAM": "group_cam",
    "HiResCAM": "hires_cam",
    "KPCACAM": "kpca_cam",
    "LayerCAM": "layer_cam",
    "LeGrad": "le_grad",
    "ScoreCAM": "score_cam",
    "SelectiveGroupCAM": "selective",
    "ShapleyCAM": "shapley_cam",
    "XGradCAM": "x_grad_cam",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Imports a public name."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.attr.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The public names, those that are not imported yet included."""
    return sorted({*globals(), *__all__})
