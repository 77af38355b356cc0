"""Quantus's measures on finished maps: parameters spelled out, one float a sample, no surprises.

Written against Quantus 0.6.0, whose behaviour shapes these modules:

* Its metrics normalise maps over the batch, correlate over the batch (SensitivityN) or average
  over it (ROAD). So each sample is a call of its own (Sufficiency excepted, which compares
  samples), on a map divided by its own largest absolute value, with ``normalise=False``.
* It draws from NumPy's and torch's global generators. They are seeded for the call and put back.
* A one-channel map is repeated over the input's channels: a *feature* is one channel of a pixel.
* It sorts with an unstable sort, so large flat areas of a map would be removed in an order that
  means nothing. Where a measure sorts, ties are broken by a seeded permutation.
* An empty mask scores NaN, in PointingGame even a hit; undefined correlations are NaN. Here they
  are errors.

Every function takes :class:`~benchmarks.measures.explained.Explained` and returns N values.
"""

from ._complexity import (
    complexity,
    sparseness,
)
from ._faithfulness import (
    dividing_patch_size,
    faithfulness_correlation,
    faithfulness_estimate,
    features_in_step,
    infidelity,
    irof,
    largest_divisor,
    monotonicity_correlation,
    patch_size,
    pixel_flipping,
    region_perturbation,
    road,
    selectivity,
    sensitivity_n,
    sufficiency,
)
from ._localisation import (
    attribution_localisation,
    auc,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_intersection,
)
from ._randomisation import (
    mprt,
    random_logit,
)

__all__ = [
    "attribution_localisation",
    "auc",
    "complexity",
    "dividing_patch_size",
    "faithfulness_correlation",
    "faithfulness_estimate",
    "features_in_step",
    "infidelity",
    "irof",
    "largest_divisor",
    "monotonicity_correlation",
    "mprt",
    "patch_size",
    "pixel_flipping",
    "pointing_game",
    "random_logit",
    "region_perturbation",
    "relevance_mass_accuracy",
    "relevance_rank_accuracy",
    "road",
    "selectivity",
    "sensitivity_n",
    "sparseness",
    "sufficiency",
    "top_k_intersection",
]
