"""Our measures of localisation: does the map lie where the object or the evidence is?"""

from __future__ import annotations

import warnings

from torch import Tensor

from captum_groupcam.metrics.functional import (
    LocalisationResult,
    localisation,
    pointing_game,
)

from .explained import Explained
from .measure import Measure

__all__ = ["LOCALISATION"]


def _pointing_game(explained: Explained, *, tolerance: float) -> Tensor:
    """1 if the map's maximum is nearer to the object than the tolerance in pixels, else 0."""
    masks = explained.masks
    return pointing_game(
        explained.maps,
        boxes=explained.boxes,
        masks=None if masks is None else masks.squeeze(1),
        image_size=explained.image_sizes,
        tolerance=tolerance,
    )


def _pointing_game_measure(name: str, score: str, tolerance: float) -> Measure:
    return Measure(
        name,
        "localisation",
        {score: True},
        _pointing_game,
        "Zhang et al. 2018, arXiv 1608.00507",
        frozenset({"objects"}),
        {"tolerance": tolerance},
        shares_batches=True,
    )


def _evidence(explained: Explained) -> LocalisationResult:
    objects = explained.objects
    assert objects is not None
    with warnings.catch_warnings():
        # A constant map is measured as what it is: chance.
        warnings.filterwarnings("ignore", "The map is constant")
        return localisation(explained.maps, objects)


def _grid_pointing_game(explained: Explained) -> tuple[Tensor, ...]:
    """Areas under the ROC and precision-recall curve of the right cell's pixels, hits, share."""
    return tuple(_evidence(explained))


def _planted_evidence(explained: Explained) -> tuple[Tensor, ...]:
    """Area under the precision-recall curve of the evidence's pixels, hits, and mass inside."""
    found = _evidence(explained)
    return found.pr_auc, found.hit, found.share


#: In the order of the registry.
LOCALISATION = (
    _pointing_game_measure("PointingGame", "pointing_game", 15.0),
    _pointing_game_measure("PointingGame.0px", "pointing_game.0px", 0.0),
    Measure(
        "GridPointingGame",
        "localisation",
        {"grid.roc_auc": True, "grid.pr_auc": True, "grid.hit": True, "grid.share": True},
        _grid_pointing_game,
        "Böhle et al. 2021, arXiv 2104.00032; Rao et al. 2022, arXiv 2205.10435",
        frozenset({"objects"}),
        shares_batches=True,
    ),
    Measure(
        "PlantedEvidence",
        "localisation",
        {"planted.pr_auc": True, "planted.hit": True, "planted.mass": True},
        _planted_evidence,
        "Arras et al. 2022, arXiv 2003.07258",
        frozenset({"objects"}),
        shares_batches=True,
    ),
)
