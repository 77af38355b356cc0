"""Group-CAM, and the methods that it is compared with, for Captum."""

from captum_groupcam.cam import CAM
from captum_groupcam.grad_cam_plus_plus import GradCAMPlusPlus
from captum_groupcam.group_cam import GroupCAM
from captum_groupcam.rise import RISE
from captum_groupcam.score_cam import ScoreCAM
from captum_groupcam.selective import SelectiveGroupCAM
from captum_groupcam.xrai import XRAI

__version__ = "0.1.0"
__all__ = ["CAM", "RISE", "XRAI", "GradCAMPlusPlus", "GroupCAM", "ScoreCAM", "SelectiveGroupCAM"]
