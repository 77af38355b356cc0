"""Quantus's measures of faithfulness: what the network says without what the map points at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import quantus
from quantus.functions.perturb_func import noisy_linear_imputation
from scipy.stats import pearsonr
from torch import Tensor

from ..explained import Explained
from ._calls import (
    NO_SCORE,
    Array,
    finite_scores,
    make_metric,
    n_pixels,
    one_by_one,
    reject_useless,
    run_metric,
    scaled,
    spearman,
    to_numpy,
)

_NO_RESPONSE = "the network's score is the same at every step, so there is nothing to correlate"


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of a number that is not above a limit."""
    return next(d for d in range(min(number, at_most), 0, -1) if number % d == 0)


def features_in_step(shape: Sequence[int], steps: int) -> int:
    """Features that a step removes, for inputs of shape (..., H, W).

    As many steps as asked for, or a few less, would remove one channel, since Quantus wants the
    number to divide that of the pixels; C times as many remove all.
    """
    pixels = shape[-2] * shape[-1]
    return pixels // largest_divisor(pixels, steps)


def patch_size(shape: Sequence[int], patches: int) -> int:
    """Side of square patches of which about `patches` fit along the shorter side."""
    return math.ceil(min(shape[-2:]) / patches)


def dividing_patch_size(shape: Sequence[int], patches: int) -> int:
    """The same where patches must divide both sides."""
    side = math.gcd(*shape[-2:])
    return side // largest_divisor(side, patches)


def faithfulness_correlation(
    samples: Explained, *, nr_runs: int, subset_size: int, perturb_baseline: str
) -> Tensor:
    """Correlates the map's sum over random features with the drop of the logit without them.

    Of `subset_size` features, but at most a quarter of the number of pixels.
    """
    metric = make_metric(
        quantus.FaithfulnessCorrelation,
        nr_runs=nr_runs,
        subset_size=min(subset_size, n_pixels(samples) // 4),
        perturb_baseline=perturb_baseline,
    )
    values = [run_metric(metric, *one)[0] for one in one_by_one(samples)]
    return finite_scores(metric, values, _NO_RESPONSE)


def faithfulness_estimate(samples: Explained, *, steps: int, perturb_baseline: str) -> Tensor:
    """Correlates the map's sum over a step's features with the drop of the logit without them."""
    metric = make_metric(
        quantus.FaithfulnessEstimate,
        features_in_step=features_in_step(samples.inputs.shape, steps),
        perturb_baseline=perturb_baseline,
    )
    values = [run_metric(metric, *one)[0] for one in one_by_one(samples, distinct=True)]
    return finite_scores(metric, values, _NO_RESPONSE)


def monotonicity_correlation(
    samples: Explained, *, steps: int, nr_samples: int, perturb_baseline: str
) -> Tensor:
    """Rank-correlates abs(map) over a step's features with the spread of p(class) over values.

    Steps of equal sums share their rank, so ties stay ties here.
    """
    metric = make_metric(
        quantus.MonotonicityCorrelation,
        similarity_func=spearman,  # Quantus's fails on one sample that is constant
        nr_samples=nr_samples,
        features_in_step=features_in_step(samples.inputs.shape, steps),
        perturb_baseline=perturb_baseline,
        abs=True,
    )
    values = [run_metric(metric, *one, softmax=True)[0] for one in one_by_one(samples)]
    return finite_scores(metric, values, _NO_RESPONSE)


def pixel_flipping(samples: Explained, *, steps: int, perturb_baseline: str) -> Tensor:
    """Area under p(class) while features are removed, most relevant first."""
    metric = make_metric(
        quantus.PixelFlipping,
        features_in_step=features_in_step(samples.inputs.shape, steps),
        perturb_baseline=perturb_baseline,
    )
    return _areas(metric, samples)


def region_perturbation(
    samples: Explained, *, patches: int, regions_evaluation: int, perturb_baseline: str
) -> Tensor:
    """AOPC: mean drop of p(class) while patches are removed, most relevant first.

    Quantus returns the drops, of which high ones are good, though it labels them "lower".
    """
    metric = make_metric(
        quantus.RegionPerturbation,
        patch_size=patch_size(samples.inputs.shape, patches),
        regions_evaluation=regions_evaluation,
        order="morf",
        perturb_baseline=perturb_baseline,
    )
    drops = [
        run_metric(metric, *one, softmax=True)[0] for one in one_by_one(samples, distinct=True)
    ]
    # The untouched image counts too, with a drop of 0.
    return finite_scores(metric, [np.sum(drop) / (len(drop) + 1) for drop in drops], NO_SCORE)


def selectivity(samples: Explained, *, patches: int, perturb_baseline: str) -> Tensor:
    """Area under p(class) while all patches are removed, most relevant first."""
    metric = make_metric(
        quantus.Selectivity,
        patch_size=patch_size(samples.inputs.shape, patches),
        perturb_baseline=perturb_baseline,
    )
    return _areas(metric, samples)


def sensitivity_n(
    samples: Explained, *, steps: int, n_max_fraction: float, perturb_baseline: str
) -> Tensor:
    """Correlates the map's sum over the n top features with the drop of the logit without them.

    For one sample, over growing n; the paper draws subsets of n features instead. Quantus itself
    correlates over the samples of a batch, for each n, and takes the drop without n features, but
    the map's sum over the last step's alone. Its ``similarity_func`` gets both, so what belongs
    together is correlated there.
    """

    def similarity(a: Array, b: Array, batched: bool) -> list[float]:  # noqa: ARG001
        drops, sums = a[:, 0], np.cumsum(b[:, 0])
        return [float(pearsonr(drops, sums)[0])]

    metric = make_metric(
        quantus.SensitivityN,
        similarity_func=similarity,
        # Quantus multiplies it by the number of pixels, but counts features.
        n_max_percentage=n_max_fraction * samples.inputs.shape[1],
        features_in_step=features_in_step(samples.inputs.shape, steps),
        perturb_baseline=perturb_baseline,
    )
    values = [run_metric(metric, *one)[0] for one in one_by_one(samples, distinct=True)]
    return finite_scores(metric, values, _NO_RESPONSE)


def irof(samples: Explained, *, segmentation_method: str) -> Tensor:
    """Area over p(class) relative to the whole image's while segments turn to the mean colour.

    In units of segments, of which SLIC makes about 100; most relevant first. The mean colour is
    that of the untouched image; Quantus's own replacement fails on inputs with several channels.
    """

    def metric(sample: Explained) -> Any:
        return make_metric(
            quantus.IROF,
            segmentation_method=segmentation_method,
            perturb_func=_replace_by_mask,
            perturb_func_kwargs={
                "value": to_numpy(sample.inputs.float().mean((2, 3), keepdim=True))
            },
        )

    values = [
        run_metric(metric(sample), sample, maps, softmax=True)[0]
        for sample, maps in one_by_one(samples, distinct=True)
    ]
    return finite_scores(
        metric(samples), values, "the class has probability 0 on the untouched image"
    )


def _replace_by_mask(arr: Array, mask: Array, value: Array, **_: Any) -> Array:
    return np.where(mask, value, arr)


def road(samples: Explained, *, percentages: tuple[int, ...], noise: float) -> Tensor:
    """How often the class stays the predicted one, over percentages of the top pixels removed.

    Removed pixels are imputed from their neighbours. A class that is not predicted for the
    untouched image scores near 0 with any map. Quantus takes the features of all channels for
    pixels, and fails on inputs with several channels: here features are turned into pixels.
    """
    channels, pixels = samples.inputs.shape[1], n_pixels(samples)

    def impute(arr: Array, indices: Array, **options: Any) -> Array:
        result: Array = noisy_linear_imputation(arr, np.unique(indices % pixels), **options)
        return result

    metric = make_metric(
        quantus.ROAD,
        # Quantus takes so many percent of the number of pixels, but counts features.
        percentages=[channels * percentage for percentage in percentages],
        noise=noise,
        perturb_func=impute,
    )
    kept = [run_metric(metric, *one, softmax=True) for one in one_by_one(samples, distinct=True)]
    return finite_scores(metric, [np.mean(list(hits.values())) for hits in kept], NO_SCORE)


def infidelity(samples: Explained, *, patches: int, perturb_baseline: str) -> Tensor:
    """Mean squared error between the logit's drop and what the map predicts of it.

    Patches are removed one after the other. A saliency map has no unit, so it gets the scale that
    fits best, as in ``captum.metrics.infidelity(normalize=True)``. The removal is not random, so
    repeating it (Quantus's ``n_perturb_samples``) changes nothing.
    """

    def scaled_error(a: Array, b: Array, batched: bool) -> Array:  # noqa: ARG001
        squares = (b * b).sum(axis=-1, keepdims=True)
        scale = (a * b).sum(axis=-1, keepdims=True) / np.where(squares == 0, 1, squares)
        error: Array = ((a - scale * b) ** 2).mean(axis=-1)
        return error

    metric = make_metric(
        quantus.Infidelity,
        loss_func=scaled_error,
        perturb_patch_sizes=[dividing_patch_size(samples.inputs.shape, patches)],
        n_perturb_samples=1,
        perturb_baseline=perturb_baseline,
    )
    return finite_scores(
        metric, [run_metric(metric, *one)[0] for one in one_by_one(samples)], NO_SCORE
    )


def sufficiency(samples: Explained, *, threshold: float) -> Tensor:
    """Among samples with a similar map, the share for which the network predicts the same class.

    Compares the samples of a batch, so a value depends on the others: give it all of them. Similar
    maps are at most `threshold` times the largest distance apart. A sample without any scores 0.
    The distance is Quantus's (Euclidean, each pixel standardised), except that pixels that are the
    same in all maps are left out: they would make every distance NaN, and every score 0.

    Raises:
        ValueError: If there is only one sample.
    """
    if len(samples) < 2:
        raise ValueError("Sufficiency compares samples: give it at least two, better all of them.")
    reject_useless(samples.maps)
    maps = scaled(samples.maps)
    flat = maps.reshape(len(maps), -1)
    varies = np.ptp(flat, axis=0) > 0
    if not varies.any():
        raise ValueError("All maps are the same: Sufficiency has nothing to compare.")
    spread = flat[:, varies].std(axis=0, ddof=1)

    def distance(u: Array, v: Array, **_: Any) -> float:
        return float(np.linalg.norm((u - v)[varies] / spread))

    metric = make_metric(quantus.Sufficiency, threshold=threshold, distance_func=distance)
    return finite_scores(metric, run_metric(metric, samples, maps), NO_SCORE)


def _areas(metric: Any, samples: Explained) -> Tensor:
    """Areas under the curves that a metric gives, sample by sample."""
    curves = [
        run_metric(metric, *one, softmax=True)[0] for one in one_by_one(samples, distinct=True)
    ]
    return finite_scores(metric, [_area(curve) for curve in curves], NO_SCORE)


def _area(curve: Array) -> float:
    """Area under a curve over equal steps from 0 to 1 (trapezoid)."""
    values = np.asarray(curve, dtype=np.float64)
    return float((values[1:] + values[:-1]).mean() / 2)
