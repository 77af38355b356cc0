"""Networks: which layer, its activations on a grid, the tensor that is explained, speed."""

from captum_groupcam.networks.acceleration import Accelerated, accelerate
from captum_groupcam.networks.check import LayerCheck, check_layer
from captum_groupcam.networks.layers import find_layer, find_reshape_transform
from captum_groupcam.networks.outputs import (
    BoxScore,
    RegionMean,
    SelectOutput,
    best_box_scores,
    region_mean,
    select_output,
)
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.transformers import (
    ReshapeTransform,
    channels_first,
    token_grid,
    tokens_to_grid,
)

__all__ = [
    "Accelerated",
    "BoxScore",
    "LayerCheck",
    "RegionMean",
    "ReshapeTransform",
    "SelectOutput",
    "TargetLayer",
    "accelerate",
    "best_box_scores",
    "channels_first",
    "check_layer",
    "find_layer",
    "find_reshape_transform",
    "region_mean",
    "select_output",
    "token_grid",
    "tokens_to_grid",
]
