"""Bootstrap intervals against a resampling loop, known distributions, and each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.report import statistics
from benchmarks.report.statistics import Interval, bootstrap_mean, paired_bootstrap


def resampled_percentiles(values: np.ndarray, confidence: float, n_resamples: int) -> list[float]:
    rng = np.random.default_rng(123)
    means = [rng.choice(values, size=len(values)).mean() for _ in range(n_resamples)]
    tail = 50 * (1 - confidence)
    return np.percentile(means, [tail, 100 - tail]).tolist()


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_interval_equals_a_plain_loop_up_to_monte_carlo_error(confidence):
    values = np.random.default_rng(0).gamma(1.5, size=60)
    interval = bootstrap_mean(values, confidence, n_resamples=20_000)
    expected = resampled_percentiles(values, confidence, 20_000)
    error = values.std() / math.sqrt(60)
    assert [interval.low, interval.high] == pytest.approx(expected, abs=0.1 * error)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.n == 60


def test_interval_of_many_values_is_the_normal_one():
    values = np.random.default_rng(1).normal(2.0, 3.0, size=2000)
    interval = bootstrap_mean(values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(2)
    intervals = [bootstrap_mean(rng.random(40) ** 2, n_resamples=500) for _ in range(400)]
    covered = np.mean([interval.low <= 1 / 3 <= interval.high for interval in intervals])
    assert 0.91 <= covered <= 0.98


def test_paired_interval_covers_the_true_difference_and_is_narrower_than_unpaired_ones():
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(300):
        difficulty = rng.normal(0, 5, size=40)
        a, b = (difficulty + rng.normal(shift, 1, size=40) for shift in (1.0, 0.5))
        interval = paired_bootstrap(a, b, n_resamples=500)
        covered.append(interval.low <= 0.5 <= interval.high)
    assert 0.90 <= np.mean(covered) <= 0.98
    alone = bootstrap_mean(a)
    assert interval.high - interval.low < (alone.high - alone.low) / 2


def test_paired_is_the_mean_of_the_differences():
    rng = np.random.default_rng(4)
    a, b = rng.random((2, 30))
    assert paired_bootstrap(a, b, 0.9, 800, 7) == bootstrap_mean(a - b, 0.9, 800, 7)
    forth, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert forth.mean == pytest.approx(-back.mean)
    assert forth.low == pytest.approx(-back.high, abs=0.05 * (forth.high - forth.low))


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30),
    st.floats(0.1, 10),
    st.floats(-100, 100),
)
@settings(max_examples=25, deadline=None)
def test_interval_holds_the_mean_and_moves_with_the_values(values, scale, shift):
    interval = bootstrap_mean(values, n_resamples=300)
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert interval.low - slack <= interval.high
    assert min(values) - slack <= interval.low
    assert interval.high <= max(values) + slack
    moved = bootstrap_mean(scale * np.array(values) + shift, n_resamples=300)
    for name in ("mean", "low", "high"):
        expected = scale * getattr(interval, name) + shift
        assert getattr(moved, name) == pytest.approx(expected, rel=1e-9, abs=1e-7)


@pytest.mark.parametrize("value", [0.0, 1.0, 1 / 3])
def test_equal_values_have_an_interval_of_zero_width(value):
    assert bootstrap_mean([value] * 17) == Interval(value, value, value, 17)


def test_one_value_has_no_interval():
    interval = bootstrap_mean([0.3])
    assert interval.mean == 0.3
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert interval.n == 1


def test_seed_decides_and_the_global_generator_is_left_alone():
    values = np.random.default_rng(5).random(20)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_batches_of_any_size_give_the_same_interval(monkeypatch):
    values = np.random.default_rng(6).random(25)
    whole = bootstrap_mean(values, n_resamples=999)
    monkeypatch.setattr(statistics, "_BATCH_ELEMENTS", 100)
    assert bootstrap_mean(values, n_resamples=999) == whole


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "non-empty"),
        ([[0.1, 0.2]], r"shape \(1, 2\)"),
        ([0.1, math.nan, 0.2, math.inf], r"at \[1, 3\] \(2 of 4\)"),
    ],
)
def test_wrong_values_are_errors(values, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values)
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(values, values)


def test_wrong_options_are_errors():
    with pytest.raises(ValueError, match="got 3 and 2"):
        paired_bootstrap([0.1, 0.2, 0.3], [0.1, 0.2])
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got 95"):
        bootstrap_mean([0.1, 0.2], 95)
    with pytest.raises(ValueError, match="n_resamples must be positive"):
        bootstrap_mean([0.1, 0.2], n_resamples=0)
