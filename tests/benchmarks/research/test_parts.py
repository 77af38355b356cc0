"""The small functions that the ideas are made of, against loops from their equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard as scipy_hadamard
from torch import Tensor

from benchmarks.research.choices import moved
from benchmarks.research.finish import interleaved
from benchmarks.research.questions import hadamard
from benchmarks.research.regression import mask_cells, posterior, smoothness
from benchmarks.research.runs import ordered, run_groups
from benchmarks.research.steps import BASELINES, SCORES, Complements, lookup
from captum_groupcam.masking.masks import LayerMasks


def contributions(samples: int = 2, channels: int = 11, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, channels, 4, 4, generator=generator, dtype=torch.double)


# --- groups


def test_the_order_of_channels_is_the_papers_unless_asked() -> None:
    assert run_groups(contributions(), 4).tolist() == [[0] * 3 + [1] * 3 + [2] * 3 + [3] * 2] * 2


def test_by_place_neighbours_on_the_curve_are_together() -> None:
    # One channel for each of the 4 x 4 cells: quadrants, and in these again, come one by one.
    peaks = torch.eye(16).view(1, 16, 4, 4)
    cells = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert ordered(peaks, "place").view(4, 4).tolist() == cells
    assert [run_groups(peaks, 4, order="place")[0, group].unique().tolist() for group in cells] == [
        [0], [1], [2], [3]
    ]  # fmt: skip
    assert ordered(-peaks, "place").tolist() == ordered(peaks, "place").tolist()


def test_by_weight_the_largest_sum_comes_first() -> None:
    values = contributions()
    for sample, order in zip(values, ordered(values, "weight"), strict=True):
        sums = [float(sample[channel].sum()) for channel in order]
        assert sums == sorted(sums, reverse=True)


@given(st.integers(1, 12), st.integers(0, 99), st.sampled_from(["channel", "place", "weight"]))
@settings(max_examples=30, deadline=None)
def test_balanced_groups_are_cut_where_a_channels_middle_falls(
    n_groups: int, seed: int, order: str
) -> None:
    values = contributions(samples=1, seed=seed)
    groups = run_groups(values, n_groups, order=order, balanced=True)[0].tolist()
    mass = [float(channel.clamp(min=0).sum()) for channel in values[0]]
    before, shares = 0.0, min(n_groups, 11) / sum(mass)
    for channel in ordered(values, order)[0].tolist():
        assert groups[channel] == int((before + mass[channel] / 2) * shares)
        before += mass[channel]


def test_channels_without_any_mass_make_one_group() -> None:
    assert run_groups(-torch.ones(1, 5, 2, 2), 3, balanced=True).tolist() == [[0] * 5]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown order 'size': expected one of channel, place"):
        ordered(contributions(), "size")
    with pytest.raises(ValueError, match="Unknown score 'odds'"):
        lookup(SCORES, "odds", "score")


# --- scores and baselines


def test_scores_are_what_they_are_called() -> None:
    logits = torch.randn(3, 4, dtype=torch.double)
    odds = SCORES["log_odds"](logits)
    torch.testing.assert_close(odds, torch.logit(logits.softmax(1)))
    torch.testing.assert_close(SCORES["log_probability"](logits).exp(), logits.softmax(1))
    sure = SCORES["log_odds"](torch.tensor([[100.0, 0.0]]))
    assert sure.isfinite().all()


def test_the_mean_colour_is_that_of_each_image() -> None:
    images = torch.rand(2, 3, 4, 5)
    mean = BASELINES["mean"](images)  # type: ignore[operator]
    for sample in range(2):
        for channel in range(3):
            expected = images[sample, channel].mean().expand(4, 5)
            torch.testing.assert_close(mean[sample, channel], expected)


def test_complements_show_what_masks_hide() -> None:
    masks = LayerMasks(torch.rand(1, 2, 3, 3))
    which = torch.tensor([0, 1])
    both = [one.render(which * 0, which, (6, 6)) for one in (masks, Complements(masks))]
    torch.testing.assert_close(both[0] + both[1], torch.ones(2, 1, 6, 6))
    assert Complements(masks).informative is not None


# --- regression


def test_the_posterior_is_that_of_regression_with_a_normal_prior() -> None:
    rng = np.random.default_rng(0)
    rows, scores = rng.random((2, 5, 9)), rng.random((2, 5))
    prior, noise = rng.random((2, 9)), 0.3
    covariance = smoothness((3, 3), 0.4, torch.ones(1, dtype=torch.double)).numpy()
    found = posterior(
        *map(torch.from_numpy, (rows, scores, prior, covariance)), noise=noise
    ).numpy()  # fmt: skip
    for sample in range(2):
        shown = rows[sample]
        scale = np.linalg.lstsq((shown @ prior[sample])[:, None], scores[sample], rcond=None)[0][0]
        assert scale > 0
        variance = noise * np.trace(shown @ covariance @ shown.T) / 5
        # Bishop, Pattern Recognition and Machine Learning, eq. 3.50 and 3.51
        precision = np.linalg.inv(covariance) + shown.T @ shown / variance
        evidence = shown.T @ scores[sample] / variance
        start = np.linalg.solve(covariance, scale * prior[sample])
        expected = np.linalg.solve(precision, evidence + start)
        np.testing.assert_allclose(found[sample], expected, rtol=1e-6)


def test_with_much_noise_and_no_prior_it_is_the_sum_of_the_masks() -> None:
    rows, scores = torch.rand(1, 4, 6).double(), torch.rand(1, 4).double()
    found = posterior(rows, scores, torch.zeros(1, 6).double(), torch.eye(6).double(), noise=1e9)
    merged = (scores.unsqueeze(1) @ rows).squeeze(1)
    torch.testing.assert_close(found / found.sum(), merged / merged.sum())


def test_scores_against_the_prior_leave_nothing_of_it() -> None:
    rows = torch.rand(1, 4, 6)
    found = posterior(rows, -torch.ones(1, 4), torch.ones(1, 6), torch.eye(6), noise=1.0)
    assert (found < 0).all()


def test_cells_are_the_mean_of_what_they_show() -> None:
    masks = LayerMasks(torch.stack([torch.rand(1, 3, 3), torch.ones(1, 3, 3)], 1))
    cells = mask_cells(masks, (12, 8), (3, 2))
    (whole,) = masks.render(torch.tensor([0]), torch.tensor([0]), (12, 8))
    expected = [
        whole[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean()
        for row in range(3)
        for column in range(2)
    ]
    torch.testing.assert_close(cells[0, 0], torch.stack(expected))
    assert not cells[0, 1].any()  # flat


@pytest.mark.parametrize("size", [1, 2, 16])
def test_hadamard(size: int) -> None:
    np.testing.assert_array_equal(hadamard(size).numpy(), scipy_hadamard(size))


def test_hadamard_needs_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="power of two, got 12"):
        hadamard(12)


# --- finish


def test_four_maps_become_one() -> None:
    maps = [torch.rand(2, 3, 4, 5) for _ in range(4)]
    fine = interleaved(maps)
    assert fine.shape == (2, 3, 8, 10)
    for index, one in enumerate(maps):
        torch.testing.assert_close(fine[:, :, index // 2 :: 2, index % 2 :: 2], one)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-3, 2)])
def test_a_window_moves(down: int, right: int) -> None:
    images = torch.rand(1, 2, 6, 5)
    seen = moved(images, down, right)
    for row in range(6):
        for column in range(5):
            at = min(max(row + down, 0), 5), min(max(column + right, 0), 4)
            torch.testing.assert_close(seen[..., row, column], images[..., at[0], at[1]])


def test_a_window_that_moves_by_a_stride_moves_the_map() -> None:
    images = torch.rand(1, 1, 12, 12)
    whole, seen = (F.avg_pool2d(one, 3) for one in (images, moved(images, 3, 0)))
    torch.testing.assert_close(seen[..., :-1, :], whole[..., 1:, :])
