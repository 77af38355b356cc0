"""Measures of finished maps, as torchmetrics metrics; pure functions in ``functional``."""

from captum_groupcam.metrics.average_drop import AverageDrop
from captum_groupcam.metrics.deletion_insertion import DeletionInsertion
from captum_groupcam.metrics.localisation import GridPointingGame, Localisation
from captum_groupcam.metrics.pointing_game import PointingGame

__all__ = ["AverageDrop", "DeletionInsertion", "GridPointingGame", "Localisation", "PointingGame"]
