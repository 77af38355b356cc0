"""Algorithms as pure functions, for methods whose classes have many arguments to describe."""

from captum_groupcam.attr.functional.group_cam import GroupCAMResult, group_cam
from captum_groupcam.attr.functional.rise import RISEResult, rise
from captum_groupcam.attr.functional.score_cam import ScoreCAMResult, score_cam
from captum_groupcam.attr.functional.selective import SelectiveResult, selective_group_cam
from captum_groupcam.attr.functional.xrai import xrai

__all__ = [
    "GroupCAMResult",
    "RISEResult",
    "ScoreCAMResult",
    "SelectiveResult",
    "group_cam",
    "rise",
    "score_cam",
    "selective_group_cam",
    "xrai",
]
