"""How similar two maps are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import Tensor

__all__ = ["rank_correlation", "ssim"]


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's correlation of the pixels; a constant map resembles no other: 0."""
    one, other = _plane(first), _plane(second)
    if not np.ptp(one) or not np.ptp(other):
        return 0.0
    return float(spearmanr(one, other, axis=None).statistic)


def ssim(first: Tensor, second: Tensor) -> float:
    """Structural similarity of the maps, each scaled to [0, 1]; of a constant map 0."""
    one, other = _plane(first), _plane(second)
    if not np.ptp(one) or not np.ptp(other):
        return 0.0
    return float(structural_similarity(_unit(one), _unit(other), data_range=1.0))


def _plane(maps: Tensor) -> NDArray[np.float64]:
    return maps.squeeze(0).cpu().double().numpy()


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low)
