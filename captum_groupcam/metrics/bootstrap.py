"""The bootstrap: how far a result would move with another draw of what it is made of."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Interval", "bootstrap_mean", "resampling_counts"]


class Interval(NamedTuple):
    """A mean and its confidence interval.

    Attributes:
        mean (float): The mean.
        low (float): Lower end of the interval; NaN for a single value.
        high (float): Upper end of the interval; NaN for a single value.
        n (int): Number of values.
    """

    mean: float
    low: float
    high: float
    n: int


def resampling_counts(n: int, n_resamples: int, seed: int = 0) -> Tensor:
    """Draws n of n things with replacement, again and again: how often each was drawn.

    Args:
        n (int): Number of things.
        n_resamples (int): Number of resamples, B.
        seed (int, optional): Seed of the draws. Default: 0.

    Returns:
        Tensor: B x n counts, float64, on the CPU, so that they are the same for every device.

    Raises:
        ValueError: If there is nothing to draw, or fewer than two resamples.

    Examples::

        >>> resampling_counts(4, 3).sum(1)
        tensor([4., 4., 4.], dtype=torch.float64)
    """
    if n < 1:
        raise ValueError("There is nothing to resample.")
    if n_resamples < 2:
        raise ValueError(f"n_resamples must be at least 2, got {n_resamples}.")
    drawn = torch.randint(n, (n_resamples, n), generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros(n_resamples, n, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones((), dtype=torch.float64).expand(drawn.shape))


def bootstrap_mean(
    values: Tensor, confidence: float = 0.95, n_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of a handful of values, with its percentile bootstrap interval.

    Source: Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13.

    Args:
        values (Tensor): n values, one a sample.
        confidence (float, optional): Confidence level, between 0 and 1. Default: 0.95.
        n_resamples (int, optional): Number of resamples. Default: 10,000.
        seed (int, optional): Seed of the resampling. Default: 0.

    Returns:
        Interval: Its ends are NaN for a single value, which says nothing of its spread.

    Raises:
        ValueError: If there are no values, or the confidence is out of range.

    Examples::

        >>> bootstrap_mean(torch.tensor([0.25, 0.5, 0.75, 1.0]))
        Interval(mean=0.625, low=0.375, high=0.875, n=4)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    sample = values.detach().cpu().double()
    n = len(sample)
    means = resampling_counts(n, n_resamples, seed) @ sample / n
    mean = float(sample.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    outside = (1 - confidence) / 2
    low, high = means.quantile(torch.tensor([outside, 1 - outside], dtype=means.dtype)).tolist()
    return Interval(mean, low, high, n)
