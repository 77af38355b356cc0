"""Means over samples with their bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap

from captum_groupcam.metrics.bootstrap import Interval

__all__ = ["Interval", "bootstrap_mean", "paired_bootstrap"]

#: Numbers that one batch of resamples may hold: 32 MiB of values and as much of indices.
_BATCH_ELEMENTS = 2**22


def bootstrap_mean(
    values: ArrayLike, confidence: float = 0.95, n_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of one value a sample, with its percentile bootstrap interval.

    Resamples the values with replacement (Efron & Tibshirani, *An Introduction to the Bootstrap*,
    1993, chapter 13) through :func:`scipy.stats.bootstrap`. Percentiles rather than BCa: BCa
    leaves out every sample once, which takes n**2 steps, too slow for ImageNet's 50,000. With
    fewer than about 40 skewed values percentile intervals are somewhat too narrow.

    Args:
        values (array-like): N finite numbers, one a sample.
        confidence (float, optional): Confidence level, between 0 and 1. Default: 0.95.
        n_resamples (int, optional): Number of bootstrap resamples. Default: 10,000.
        seed (int, optional): Seed of the resampling: same values and seed, same interval.
            Default: 0.

    Returns:
        Interval: Mean, ends of the interval, and N. Equal values give an interval of zero width;
        one value says nothing about its spread, so its interval is (NaN, NaN).

    Raises:
        ValueError: If there are no values, they are not one-dimensional, one of them is NaN or
            infinite, or an option is out of range.

    Examples::

        >>> bootstrap_mean([0.25, 0.5, 0.75, 1.0])
        Interval(mean=0.625, low=0.375, high=0.875, n=4)
    """
    sample = _finite_vector(values, "values")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be positive, got {n_resamples}.")
    n = len(sample)
    mean = float(sample.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    interval = bootstrap(
        (sample,),
        np.mean,
        n_resamples=n_resamples,
        batch=max(1, _BATCH_ELEMENTS // n),
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high), n)


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean difference a - b over the same samples, with its percentile bootstrap interval.

    Whole samples are resampled, so what makes a sample hard for both sides cancels out. The
    difference is significant at the level ``1 - confidence`` when the interval leaves out 0.

    Args:
        a (array-like): N finite numbers, one a sample.
        b (array-like): N finite numbers for the same samples in the same order.
        confidence (float, optional): Confidence level, between 0 and 1. Default: 0.95.
        n_resamples (int, optional): Number of bootstrap resamples. Default: 10,000.
        seed (int, optional): Seed of the resampling. Default: 0.

    Returns:
        Interval: As from :func:`bootstrap_mean`, of the differences.

    Raises:
        ValueError: If the two have not the same length, or as in :func:`bootstrap_mean`.

    Examples::

        >>> paired_bootstrap([0.5, 0.75, 1.0], [0.25, 0.5, 0.75])
        Interval(mean=0.25, low=0.25, high=0.25, n=3)
    """
    first, second = _finite_vector(a, "a"), _finite_vector(b, "b")
    if len(first) != len(second):
        raise ValueError(
            "Paired values belong to the same samples: expected two of the same length, got "
            f"{len(first)} and {len(second)}."
        )
    return bootstrap_mean(first - second, confidence, n_resamples, seed)


def _finite_vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not vector.size:
        raise ValueError(
            f"Expected {name} to be a non-empty list of numbers, got shape {vector.shape}."
        )
    wrong = np.flatnonzero(~np.isfinite(vector))
    if wrong.size:
        raise ValueError(
            f"{name} contains NaN or infinite values at {wrong[:10].tolist()} "
            f"({wrong.size} of {vector.size}): leave those samples out and say so."
        )
    return vector
