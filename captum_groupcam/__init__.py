"""Group-CAM, and the methods that it is compared with, for Captum."""

from captum_groupcam.group_cam import GroupCAM

__version__ = "0.1.0"
__all__ = ["GroupCAM"]
