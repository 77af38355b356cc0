from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from captum_groupcam.metrics import GridPointingGame, Localisation
from captum_groupcam.metrics.functional import (
    grid_cells,
    grid_pointing_game,
    localisation,
    pointing_game,
)


def cell_map(n: int, cell: int, size: int = 12) -> Tensor:
    """1 in a cell of the grid, else 0."""
    x0, y0, x1, y1 = grid_cells(size, size, n)[cell]
    maps = torch.zeros(1, size, size)
    maps[:, y0:y1, x0:x1] = 1.0
    return maps


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(2, 7)),
    levels=st.integers(2, 40),
    seed=st.integers(0, 10_000),
)
def test_areas_are_those_of_scikit_learn_with_ties(
    size: tuple[int, int], levels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    maps = torch.from_numpy(rng.integers(-levels, levels, (3, *size)) / levels)
    masks = torch.from_numpy(rng.random((3, *size)) < 0.4)
    masks[:, 0, 0], masks[:, -1, -1] = True, False
    maps[:, 0, 1] += 0.125  # not constant
    if (maps.flatten(1).amax(1) == maps.flatten(1).amin(1)).any():
        return
    found = localisation(maps, masks)
    for index in range(3):
        labels, scores = masks[index].flatten().numpy(), maps[index].flatten().numpy()
        assert found.roc_auc[index] == pytest.approx(roc_auc_score(labels, scores))
        assert found.pr_auc[index] == pytest.approx(average_precision_score(labels, scores))
        positive = scores.clip(min=0)
        share = positive[labels].sum() / positive.sum() if positive.sum() else 0.0
        assert found.share[index] == pytest.approx(share)
    assert torch.equal(found.hit, pointing_game(maps, masks=masks, tolerance=0).to(found.hit))


@pytest.mark.parametrize("n", [2, 3])
def test_a_uniform_map_gets_what_chance_gives(n: int) -> None:
    with pytest.warns(UserWarning, match=r"constant in samples \[0\]"):
        found = grid_pointing_game(torch.full((1, 12, 12), 0.3), [n], n=n)
    assert found.roc_auc.item() == 0.5
    for value in (found.pr_auc, found.hit, found.share):
        assert value.item() == pytest.approx(1 / n**2)


@pytest.mark.parametrize(("n", "cell"), [(2, 0), (2, 3), (3, 5)])
def test_a_perfect_map_gets_1_and_its_inverse_0(n: int, cell: int) -> None:
    perfect = cell_map(n, cell)
    assert [value.item() for value in grid_pointing_game(perfect, [cell], n=n)] == [1.0] * 4
    roc_auc, _, hit, share = grid_pointing_game(1 - perfect, [cell], n=n)
    assert (roc_auc.item(), hit.item(), share.item()) == (0.0, 0.0, 0.0)


def test_sharpening_moves_the_share_alone() -> None:
    maps = torch.rand(4, 12, 12) + cell_map(2, 2)
    plain, squared = (grid_pointing_game(m, [2] * 4) for m in (maps, maps.double() ** 2))
    torch.testing.assert_close(squared.roc_auc, plain.roc_auc.double())
    torch.testing.assert_close(squared.pr_auc, plain.pr_auc.double())
    assert torch.equal(squared.hit, plain.hit.double())
    assert (squared.share > plain.share + 0.05).all()


def test_equal_maxima_count_by_the_share_that_hits() -> None:
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, 0] = maps[0, 3, 3] = maps[0, 3, 2] = 1.0
    assert [grid_pointing_game(maps, [cell]).hit.item() for cell in range(4)] == pytest.approx(
        [1 / 3, 0, 0, 2 / 3]
    )


def test_a_map_without_positive_values_has_no_share_and_keeps_its_order() -> None:
    found = grid_pointing_game(cell_map(2, 1) - 2, [1])
    assert [value.item() for value in found] == [1.0, 1.0, 1.0, 0.0]


def test_cells_cover_every_pixel_once() -> None:
    for height, width, n in ((7, 5, 2), (7, 5, 3), (224, 227, 4)):
        covered = torch.zeros(height, width)
        for x0, y0, x1, y1 in grid_cells(height, width, n):
            covered[y0:y1, x0:x1] += 1
        assert (covered == 1).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: grid_pointing_game(m, [4, 0]), "a cell from 0 to 3 for each of 2 maps"),
        (lambda m: grid_pointing_game(m, [-1, 0]), "a cell from 0 to 3"),
        (lambda m: grid_pointing_game(m, [0]), "for each of 2 maps"),
        (lambda m: grid_pointing_game(m, [0.0, 1.0]), "a cell from 0 to 3"),
        (lambda m: grid_pointing_game(m, [0, 1], n=1), "at least 2 cells a side"),
        (lambda m: grid_pointing_game(m, [0, 1], n=9), "at most one a pixel"),
        (lambda m: localisation(m, m[:1] > 0.5), "of the size of its map"),
        (lambda m: localisation(m, m > 2), r"nothing or the whole image in samples \[0, 1\]"),
        (lambda m: localisation(m, m > -1), "nothing or the whole image"),
        (lambda m: localisation(m * float("nan"), m > 0.5), "NaN"),
        (lambda m: localisation(m.repeat(1, 2, 1, 1), m > 0.5), "N x 1 x spatial"),
    ],
)
def test_wrong_arguments_are_errors(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.rand(2, 1, 8, 8))


def test_metrics_keep_each_sample_and_survive_pickling() -> None:
    maps = torch.rand(3, 1, 8, 8)
    metric = pickle.loads(pickle.dumps(GridPointingGame(n=2)))
    plain = Localisation()
    for index in (0, 1, 2, 1):
        one = maps[index : index + 1]
        metric.update(one, [index], ids=[index])
        x0, y0, x1, y1 = grid_cells(8, 8)[index]
        mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        mask[..., y0:y1, x0:x1] = True
        plain.update(one, mask, ids=[index])
    expected = grid_pointing_game(maps, [0, 1, 2])
    for one in (metric, plain):
        for name, values in expected._asdict().items():
            torch.testing.assert_close(one.per_sample()[name], values)
            torch.testing.assert_close(one.compute()[name], values.mean())
