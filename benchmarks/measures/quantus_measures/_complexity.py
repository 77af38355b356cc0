"""Quantus's measures of complexity: how few pixels the map needs."""

from __future__ import annotations

import quantus
from torch import Tensor

from ..explained import Explained
from ._calls import (
    NO_MASS,
    finite_scores,
    make_metric,
    one_by_one,
    run_metric,
)


def sparseness(samples: Explained) -> Tensor:
    """Gini index of abs(map): 0 for a flat map, towards 1 for a single pixel."""
    metric = make_metric(quantus.Sparseness, abs=True)
    return finite_scores(
        metric, [run_metric(metric, *one)[0] for one in one_by_one(samples)], NO_MASS
    )


def complexity(samples: Explained) -> Tensor:
    """Entropy of abs(map) in nats: 0 for a single pixel, log(H W) for a flat map."""
    metric = make_metric(quantus.Complexity, abs=True)
    return finite_scores(
        metric, [run_metric(metric, *one)[0] for one in one_by_one(samples)], NO_MASS
    )
