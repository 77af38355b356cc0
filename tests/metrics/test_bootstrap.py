from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from captum_groupcam.metrics.bootstrap import bootstrap_mean, resampling_counts


def test_counts_are_those_of_draws_with_replacement() -> None:
    counts = resampling_counts(3, 54_000)
    rows, times = np.unique(counts.numpy(), axis=0, return_counts=True)
    expected: dict[tuple[int, ...], int] = {}
    for drawn in itertools.product(range(3), repeat=3):
        key = tuple(np.bincount(drawn, minlength=3).tolist())
        expected[key] = expected.get(key, 0) + 1
    assert {tuple(row) for row in rows.astype(int).tolist()} == set(expected)
    for row, found in zip(rows.astype(int).tolist(), times, strict=True):
        assert found == pytest.approx(2000 * expected[tuple(row)], rel=0.1)


def test_the_interval_holds_the_middle_of_all_resamples() -> None:
    values = np.array([0.1, 0.7, 0.4, 1.5, 0.2])
    means = [np.mean(drawn) for drawn in itertools.product(values, repeat=5)]
    found = bootstrap_mean(torch.from_numpy(values), confidence=0.9)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.05, 0.95]), abs=0.02)


def test_equal_values_and_a_single_one() -> None:
    assert bootstrap_mean(torch.full((4,), 0.5)) == (0.5, 0.5, 0.5, 4)
    single = bootstrap_mean(torch.tensor([0.5]))
    assert single.mean == 0.5
    assert math.isnan(single.low)
    assert math.isnan(single.high)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_mean(torch.ones(2), confidence=95)
    with pytest.raises(ValueError, match="nothing to resample"):
        bootstrap_mean(torch.ones(0))
    with pytest.raises(ValueError, match="at least 2"):
        resampling_counts(3, 1)
