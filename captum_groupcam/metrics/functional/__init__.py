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
from captum_groupcam.metrics.functional.grid_pointing_game import grid_cells, grid_pointing_game
from captum_groupcam.metrics.functional.localisation import LocalisationResult, localisation
from captum_groupcam.metrics.functional.pointing_game import pointing_game

__all__ = [
    "PRESETS",
    "AverageDropResult",
    "DeletionInsertionProtocol",
    "DeletionInsertionResult",
    "LocalisationResult",
    "average_drop",
    "boxes_to_masks",
    "deletion_insertion",
    "grid_cells",
    "grid_pointing_game",
    "localisation",
    "pointing_game",
    "resize_masks",
    "rise_blur",
]
