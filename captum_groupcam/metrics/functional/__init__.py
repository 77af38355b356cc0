"""Measures of finished maps as pure functions: one value for each sample."""

from captum_groupcam.metrics.functional._boxes import boxes_to_masks, resize_masks
from captum_groupcam.metrics.functional.average_drop import AverageDropResult, average_drop
from captum_groupcam.metrics.functional.deletion_insertion import (
    PRESETS,
    DeletionInsertionProtocol,
    DeletionInsertionResult,
    deletion_insertion,
    rise_blur,
)
from captum_groupcam.metrics.functional.pointing_game import pointing_game

__all__ = [
    "PRESETS",
    "AverageDropResult",
    "DeletionInsertionProtocol",
    "DeletionInsertionResult",
    "average_drop",
    "boxes_to_masks",
    "deletion_insertion",
    "pointing_game",
    "resize_masks",
    "rise_blur",
]
