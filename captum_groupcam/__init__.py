"""Group-CAM, and the methods that it is compared with, for Captum."""

from captum_groupcam.attr.cam import CAM
from captum_groupcam.attr.grad_cam import GradCAM, GradCAMPlusPlus
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.attr.layer_cam import LayerCAM
from captum_groupcam.attr.rise import RISE
from captum_groupcam.attr.score_cam import ScoreCAM
from captum_groupcam.attr.selective import SelectiveGroupCAM
from captum_groupcam.attr.xrai import XRAI

__version__ = "0.1.0"
__all__ = [
    "CAM",
    "RISE",
    "XRAI",
    "GradCAM",
    "GradCAMPlusPlus",
    "GroupCAM",
    "LayerCAM",
    "ScoreCAM",
    "SelectiveGroupCAM",
]
