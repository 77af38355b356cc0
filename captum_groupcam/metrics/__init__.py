"""Measures of finished maps, as torchmetrics metrics; pure functions in ``functional``."""

from typing import TYPE_CHECKING

from captum_groupcam._lazy import lazy

if TYPE_CHECKING:
    from captum_groupcam.metrics.average_drop import AverageDrop
    from captum_groupcam.metrics.deletion_insertion import DeletionInsertion
    from captum_groupcam.metrics.localisation import GridPointingGame, Localisation
    from captum_groupcam.metrics.pointing_game import PointingGame

__all__ = ["AverageDrop", "DeletionInsertion", "GridPointingGame", "Localisation", "PointingGame"]

_HOMES = {
    "AverageDrop": "average_drop",
    "DeletionInsertion": "deletion_insertion",
    "GridPointingGame": "localisation",
    "Localisation": "localisation",
    "PointingGame": "pointing_game",
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
