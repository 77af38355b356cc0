"""Algorithms as pure functions, for methods whose classes have many arguments to describe."""

from captum_groupcam.attr.functional.consensus import consensus_group_cam
from captum_groupcam.attr.functional.group_cam import group_cam
from captum_groupcam.attr.functional.results import ConsensusResult, GroupCAMResult, QueriedMaps
from captum_groupcam.attr.functional.rise import rise
from captum_groupcam.attr.functional.score_cam import score_cam
from captum_groupcam.attr.functional.several_layers import Merge, merge_maps
from captum_groupcam.attr.functional.smoothed import FACTORS, mean_over_altered
from captum_groupcam.attr.functional.xrai import xrai

__all__ = [
    "FACTORS",
    "ConsensusResult",
    "GroupCAMResult",
    "Merge",
    "QueriedMaps",
    "consensus_group_cam",
    "group_cam",
    "mean_over_altered",
    "merge_maps",
    "rise",
    "score_cam",
    "xrai",
]
