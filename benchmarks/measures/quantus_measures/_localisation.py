"""Quantus's measures of localisation: whether the map lies on the object."""

from __future__ import annotations

import quantus
from torch import Tensor

from ..explained import Explained
from ._calls import (
    NO_MASS,
    finite_scores,
    make_metric,
    n_pixels,
    one_by_one,
    run_metric,
)

_NOTHING_OUTSIDE = "its mask covers the whole image, so no pixel is outside"


def pointing_game(samples: Explained) -> Tensor:
    """1 if the map's maximum lies in the mask, else 0; of several maxima one is drawn."""
    metric = make_metric(quantus.PointingGame, weighted=False)
    values = [run_metric(metric, *one)[0] for one in one_by_one(samples, distinct=True)]
    return finite_scores(metric, values, NO_MASS)


def attribution_localisation(samples: Explained) -> Tensor:
    """The share of abs(map) inside the mask."""
    metric = make_metric(quantus.AttributionLocalisation, weighted=False, abs=True)
    return finite_scores(
        metric, [run_metric(metric, *one)[0] for one in one_by_one(samples)], NO_MASS
    )


def top_k_intersection(samples: Explained, *, k: int) -> Tensor:
    """The share of the map's `k` top pixels (at most a quarter of all) that lie in the mask."""
    metric = make_metric(
        quantus.TopKIntersection, k=min(k, n_pixels(samples) // 4), concept_influence=False
    )
    values = [run_metric(metric, *one)[0] for one in one_by_one(samples, distinct=True)]
    return finite_scores(metric, values, NO_MASS)


def relevance_rank_accuracy(samples: Explained) -> Tensor:
    """The share of the map's K top pixels that lie in the mask, K the size of the mask."""
    metric = make_metric(quantus.RelevanceRankAccuracy)
    values = [run_metric(metric, *one)[0] for one in one_by_one(samples, distinct=True)]
    return finite_scores(metric, values, NO_MASS)


def relevance_mass_accuracy(samples: Explained) -> Tensor:
    """The share of abs(map) inside the mask."""
    metric = make_metric(quantus.RelevanceMassAccuracy, abs=True)
    return finite_scores(
        metric, [run_metric(metric, *one)[0] for one in one_by_one(samples)], NO_MASS
    )


def auc(samples: Explained) -> Tensor:
    """Area under the ROC curve of the map as a classifier of the mask's pixels."""
    metric = make_metric(quantus.AUC)
    values = [run_metric(metric, *one)[0] for one in one_by_one(samples)]
    return finite_scores(metric, values, _NOTHING_OUTSIDE)
