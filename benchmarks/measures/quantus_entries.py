"""The measures of Quantus as entries of the registry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from . import quantus_measures as quantus
from .measure import Category, Measure, Need, no_queries

__all__ = ["QUANTUS"]


def _quantus(
    kind: str,
    category: Category,
    higher_is_better: bool,
    compute: Callable[..., Tensor],
    source: str,
    *needs: Need,
    cost: Callable[..., int] = no_queries,
    explanations: int = 0,
    **parameters: Any,
) -> Measure:
    name = f"quantus.{kind}"
    return Measure(
        name,
        category,
        {name: higher_is_better},
        compute,
        source,
        frozenset(needs),
        parameters,
        cost,
        explanations,
    )


def _feature_steps(shape: Sequence[int], steps: int) -> int:
    return math.ceil(math.prod(shape) / quantus.features_in_step(shape, steps))


def _patches(shape: Sequence[int], size: int) -> int:
    return math.ceil(shape[-2] / size) * math.ceil(shape[-1] / size)


#: In the order of the registry.
QUANTUS = (
    _quantus(
        "FaithfulnessCorrelation",
        "faithfulness",
        True,
        quantus.faithfulness_correlation,
        "Bhatt et al. 2020, arXiv 2005.00631",
        "model",
        cost=lambda shape, nr_runs, **_: nr_runs + 1,  # noqa: ARG005
        nr_runs=100,
        subset_size=224,
        perturb_baseline="black",
    ),
    _quantus(
        "FaithfulnessEstimate",
        "faithfulness",
        True,
        quantus.faithfulness_estimate,
        "Alvarez-Melis & Jaakkola 2018, arXiv 1806.07538",
        "model",
        cost=lambda shape, steps, **_: _feature_steps(shape, steps) + 1,
        steps=32,
        perturb_baseline="black",
    ),
    _quantus(
        "MonotonicityCorrelation",
        "faithfulness",
        True,
        quantus.monotonicity_correlation,
        "Nguyen & Martinez 2020, arXiv 2007.07584",
        "model",
        cost=lambda shape, steps, nr_samples, **_: _feature_steps(shape, steps) * nr_samples + 1,
        steps=8,
        nr_samples=10,
        perturb_baseline="uniform",
    ),
    _quantus(
        "PixelFlipping",
        "faithfulness",
        False,
        quantus.pixel_flipping,
        "Bach et al. 2015, PLoS ONE 10(7)",
        "model",
        cost=lambda shape, steps, **_: _feature_steps(shape, steps),
        steps=32,
        perturb_baseline="black",
    ),
    _quantus(
        "RegionPerturbation",
        "faithfulness",
        True,
        quantus.region_perturbation,
        "Samek et al. 2015, arXiv 1509.06321",
        "model",
        cost=lambda shape, patches, regions_evaluation, **_: (
            min(_patches(shape, quantus.patch_size(shape, patches)), regions_evaluation) + 1
        ),
        patches=14,
        regions_evaluation=100,
        perturb_baseline="black",
    ),
    _quantus(
        "Selectivity",
        "faithfulness",
        False,
        quantus.selectivity,
        "Montavon et al. 2018, arXiv 1706.07979",
        "model",
        cost=lambda shape, patches, **_: _patches(shape, quantus.patch_size(shape, patches)),
        patches=14,
        perturb_baseline="black",
    ),
    _quantus(
        "SensitivityN",
        "faithfulness",
        True,
        quantus.sensitivity_n,
        "Ancona et al. 2018, arXiv 1711.06104",
        "model",
        cost=lambda shape, steps, **_: _feature_steps(shape, steps) + 1,
        steps=32,
        n_max_fraction=0.8,
        perturb_baseline="black",
    ),
    _quantus(
        "IROF",
        "faithfulness",
        True,
        quantus.irof,
        "Rieger & Hansen 2020, arXiv 2003.08747",
        "model",
        cost=lambda shape, **_: 101,  # noqa: ARG005 - SLIC makes about 100 segments
        segmentation_method="slic",
    ),
    _quantus(
        "ROAD",
        "faithfulness",
        False,
        quantus.road,
        "Rong et al. 2022, arXiv 2202.00449",
        "model",
        cost=lambda shape, percentages, **_: len(percentages),  # noqa: ARG005
        percentages=(10, 20, 30, 40, 50, 60, 70, 80, 90),
        noise=0.01,
    ),
    _quantus(
        "Infidelity",
        "faithfulness",
        False,
        quantus.infidelity,
        "Yeh et al. 2019, arXiv 1901.09392",
        "model",
        cost=lambda shape, patches, **_: (
            _patches(shape, quantus.dividing_patch_size(shape, patches)) + 1
        ),
        patches=14,
        perturb_baseline="black",
    ),
    _quantus(
        "Sufficiency",
        "faithfulness",
        True,
        quantus.sufficiency,
        "Dasgupta et al. 2022, arXiv 2202.00734",
        "model",
        "batch",
        cost=lambda shape, **_: 1,  # noqa: ARG005
        threshold=0.6,
    ),
    _quantus(
        "PointingGame",
        "localisation",
        True,
        quantus.pointing_game,
        "Zhang et al. 2018, arXiv 1608.00507",
        "objects",
    ),
    _quantus(
        "AttributionLocalisation",
        "localisation",
        True,
        quantus.attribution_localisation,
        "Kohlbrenner et al. 2020, arXiv 1910.09840",
        "objects",
    ),
    _quantus(
        "TopKIntersection",
        "localisation",
        True,
        quantus.top_k_intersection,
        "Theiner et al. 2021, arXiv 2104.14995",
        "objects",
        k=1000,
    ),
    _quantus(
        "RelevanceRankAccuracy",
        "localisation",
        True,
        quantus.relevance_rank_accuracy,
        "Arras et al. 2021, arXiv 2003.07258",
        "objects",
    ),
    _quantus(
        "RelevanceMassAccuracy",
        "localisation",
        True,
        quantus.relevance_mass_accuracy,
        "Arras et al. 2021, arXiv 2003.07258",
        "objects",
    ),
    _quantus(
        "AUC",
        "localisation",
        True,
        quantus.auc,
        "Fawcett 2006, doi 10.1016/j.patrec.2005.10.010",
        "objects",
    ),
    _quantus(
        "Sparseness",
        "complexity",
        True,
        quantus.sparseness,
        "Chalasani et al. 2020, arXiv 1810.06583",
    ),
    _quantus(
        "Complexity",
        "complexity",
        False,
        quantus.complexity,
        "Bhatt et al. 2020, arXiv 2005.00631",
    ),
    _quantus(
        "MPRT",
        "randomisation",
        False,
        quantus.mprt,
        "Adebayo et al. 2018, arXiv 1810.03292",
        "model",
        "explain",
        explanations=2,
        layer_order="top_down",
    ),
    _quantus(
        "RandomLogit",
        "randomisation",
        False,
        quantus.random_logit,
        "Sixt et al. 2020, arXiv 1912.09818",
        "model",
        "explain",
        cost=lambda shape: 1,  # noqa: ARG005
        explanations=1,
    ),
)
