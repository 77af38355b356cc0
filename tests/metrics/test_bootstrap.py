"""The one bootstrap: scipy's intervals, and what intervals have to be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.fft
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from captum_groupcam.metrics import bootstrap
from captum_groupcam.metrics.bootstrap import (
    Interval,
    bootstrap_curve,
    bootstrap_mean,
    paired_bootstrap,
    resampled_means,
    resampling_counts,
)
from captum_groupcam.visualization import draw_curve


def by_scipy(values: np.ndarray, confidence: float, n_resamples: int, seed: int) -> list[float]:
    interval = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=n_resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return [interval.low, interval.high]


@pytest.mark.parametrize("n", [2, 3, 17, 150])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("kind", ["gamma", "hits"])
def test_intervals_are_those_of_scipy(n: int, confidence: float, kind: str) -> None:
    rng = np.random.default_rng(n)
    values = rng.gamma(1.5, size=n) if kind == "gamma" else (rng.random(n) < 0.6).astype(float)
    interval = bootstrap_mean(values, confidence, 5000, seed=3)
    expected = by_scipy(values, confidence, 5000, 3)
    assert [interval.low, interval.high] == pytest.approx(expected, rel=1e-14)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.n == n


def test_the_same_values_have_the_same_interval_everywhere() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 4))
    along = np.stack(bootstrap_curve(values))
    axes = Figure().subplots()
    draw_curve(axes, range(4), values, color="black", label="")
    vertices = axes.collections[0].get_paths()[0].vertices
    for k in range(4):
        alone = bootstrap_mean(values[:, k])
        paired = paired_bootstrap(values[:, k] + 1, np.ones(30))
        of_tensor = bootstrap_mean(torch.from_numpy(values[:, k]).requires_grad_())
        drawn = vertices[vertices[:, 0] == k, 1]
        assert of_tensor == alone
        for ends in (along[:, k], paired[1:3], [drawn.min(), drawn.max()]):
            assert list(ends) == pytest.approx(alone[1:3], rel=1e-9)
        counts = resampling_counts(30, 10_000).numpy()
        means = counts @ values[:, k] / 30
        assert np.quantile(means, [0.025, 0.975]) == pytest.approx(alone[1:3], rel=1e-9)


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
    found = bootstrap_mean(values, confidence=0.9)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.05, 0.95]), abs=0.02)


def test_interval_of_many_values_is_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(2.0, 3.0, size=2000)
    interval = bootstrap_mean(values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.06 * half)


def exact_ends(values: np.ndarray, confidence: float) -> np.ndarray:
    """Percentiles of the mean of all resamples of whole numbers, by convolution."""
    n = len(values)
    length = scipy.fft.next_fast_len(n * int(values.max()) + 1)
    alone = np.bincount(values.astype(int), minlength=length) / n
    sums = scipy.fft.irfft(scipy.fft.rfft(alone) ** n, length)
    tail = (1 - confidence) / 2
    return np.searchsorted(np.cumsum(sums), [tail, 1 - tail]) / n


def many_values(kind: str, n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    return {
        "even": rng.integers(0, 500, n),
        "gamma": rng.gamma(1.0, 100, n).astype(int),
        "heavy tail": np.minimum(rng.lognormal(3, 1.2, n).astype(int), 600),
        "hits": (rng.random(n) < 0.6).astype(int),
        "rare hits": (rng.random(n) < 0.02).astype(int),
    }[kind]


@pytest.mark.parametrize("kind", ["even", "gamma", "heavy tail", "hits", "rare hits"])
@pytest.mark.parametrize("n", [1000, 5000])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_of_many_samples_are_exact_within_what_is_said(
    kind: str, n: int, confidence: float
) -> None:
    values = many_values(kind, n)
    ends = np.array(bootstrap_mean(values, confidence)[1:3])
    exact = exact_ends(values, confidence)
    half = (exact[1] - exact[0]) / 2
    steps = kind.endswith("hits")
    assert np.abs(ends - exact).max() <= (1 / n if steps else 0.005 * half)
    # The band of a curve is the same at each of its points, and nothing depends on a seed.
    along = bootstrap_curve(np.stack([values, 1 - values], 1), confidence, seed=7)
    assert [along[0][0], along[1][0]] == pytest.approx(ends, rel=1e-9)
    assert [along[0][1], along[1][1]] == pytest.approx(1 - ends[::-1], rel=1e-9)


def test_few_values_that_weigh_much_are_drawn_however_many_samples_there_are() -> None:
    values = np.zeros(2000)
    values[:3] = [40.0, 90.0, 1e4]
    plain = np.random.default_rng(0).random(2000)
    interval = bootstrap_mean(values, n_resamples=500, seed=1)
    assert [interval.low, interval.high] == pytest.approx(by_scipy(values, 0.95, 500, 1))
    low, high = bootstrap_curve(np.stack([plain, values], 1), n_resamples=500, seed=1)
    assert [low[1], high[1]] == pytest.approx([interval.low, interval.high])
    assert [low[0], high[0]] == pytest.approx(bootstrap_mean(plain)[1:3])


def test_just_below_many_samples_resamples_are_drawn_and_agree() -> None:
    values = np.random.default_rng(8).gamma(1.5, size=1000)
    drawn, expanded = bootstrap_mean(values[:-1]), bootstrap_mean(values)
    assert [drawn.low, drawn.high] == pytest.approx(by_scipy(values[:-1], 0.95, 10_000, 0))
    half = (expanded.high - expanded.low) / 2
    assert drawn.low - drawn.mean == pytest.approx(expanded.low - expanded.mean, abs=0.05 * half)
    assert drawn.high - drawn.mean == pytest.approx(expanded.high - expanded.mean, abs=0.05 * half)


def test_columns_are_drawn_together() -> None:
    values = np.random.default_rng(9).random((50, 2))
    means = resampled_means(values, 300, seed=4)
    assert means == pytest.approx(resampling_counts(50, 300, seed=4).numpy() @ values / 50)


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    intervals = [bootstrap_mean(rng.random(40) ** 2, n_resamples=500) for _ in range(400)]
    covered = np.mean([interval.low <= 1 / 3 <= interval.high for interval in intervals])
    assert 0.91 <= covered <= 0.98


def test_paired_interval_covers_the_true_difference_and_is_narrower_than_unpaired_ones() -> None:
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


def test_paired_is_the_mean_of_the_differences() -> None:
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
def test_interval_holds_the_mean_and_moves_with_the_values(
    values: list[float], scale: float, shift: float
) -> None:
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
def test_equal_values_have_an_interval_of_zero_width(value: float) -> None:
    assert bootstrap_mean([value] * 17) == Interval(value, value, value, 17)
    assert bootstrap_mean([value] * 1500)[:3] == pytest.approx([value] * 3, rel=1e-14)


def test_one_sample_has_no_interval() -> None:
    interval = bootstrap_mean([0.3])
    assert (interval.mean, interval.n) == (0.3, 1)
    assert np.isnan([interval.low, interval.high]).all()
    assert np.isnan(bootstrap_curve([[0.3, 0.4]])).all()


def test_seed_decides_and_the_global_generators_are_left_alone() -> None:
    values = np.random.default_rng(5).random(20)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_batches_of_any_size_give_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(6).random((25, 3))
    results: list[Callable[[], np.ndarray]] = [
        lambda: np.array(bootstrap_mean(values[:, 0], n_resamples=999)),
        lambda: np.stack(bootstrap_curve(values, n_resamples=999)),
        lambda: resampling_counts(25, 999).numpy(),
    ]
    whole = [result() for result in results]
    monkeypatch.setattr(bootstrap, "_BATCH_ELEMENTS", 100)
    for result, expected in zip(results, whole, strict=True):
        np.testing.assert_allclose(result(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "at least one"),
        ([[0.1, 0.2]], r"shape \(1, 2\)"),
        ([0.1, math.nan, 0.2, math.inf], r"in samples \[1, 3\] \(2 of 4\)"),
    ],
)
def test_wrong_values_are_errors(values: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values)
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(values, values)


def test_wrong_curves_are_errors() -> None:
    with pytest.raises(ValueError, match=r"shape N x K.*got shape \(2,\)"):
        bootstrap_curve([0.1, 0.2])
    with pytest.raises(ValueError, match=r"curves has NaN .* in samples \[1\] \(1 of 2\)"):
        bootstrap_curve([[0.1, 0.2], [math.nan, 0.3]])


def test_wrong_options_are_errors() -> None:
    with pytest.raises(ValueError, match="got 3 and 2"):
        paired_bootstrap([0.1, 0.2, 0.3], [0.1, 0.2])
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got 95"):
        bootstrap_mean([0.1, 0.2], 95)
    with pytest.raises(ValueError, match="n_resamples must be at least 2, got 1"):
        bootstrap_mean([0.1, 0.2], n_resamples=1)
    with pytest.raises(ValueError, match="nothing to resample"):
        resampling_counts(0, 10)
