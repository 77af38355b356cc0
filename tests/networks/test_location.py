"""Centres of influence, and the grids that they follow, against plain loops and known answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_groupcam.networks._layouts import MAPS, TOKENS, TOKENS_FIRST, Layout, forms, layouts
from captum_groupcam.networks._location import centers, choose, fit
from captum_groupcam.networks.transformers import channels_first, tokens_to_grid


def coordinates(grid: tuple[int, ...]) -> Tensor:
    """Where positions in rows lie: axes x positions."""
    places = itertools.product(*(range(n) for n in grid))
    return torch.tensor([[(i + 0.5) / n for i, n in zip(p, grid, strict=True)] for p in places]).T


def test_a_linear_layer_has_its_centres_where_its_weights_are() -> None:
    """Each position looks at one pixel: what it changes by is the ramp at that pixel."""
    ramp = (torch.arange(8.0) + 0.5) / 8
    noise = torch.rand(8) + 1
    energies = torch.stack([(noise * ramp) ** 2, (noise * (1 - ramp)) ** 2])[None, None]
    torch.testing.assert_close(centers(energies)[0, 0], ramp.double())


def test_a_position_that_does_not_change_has_no_centre() -> None:
    energies = torch.ones(1, 1, 2, 3)
    energies[..., 1] = 0
    assert centers(energies)[0, 0].isfinite().tolist() == [True, False, True]


def test_fit_is_that_of_linear_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    where = coordinates((4, 6)).double()
    found = 0.4 * where + 0.3 + 0.05 * torch.randn(where.shape, generator=generator).double()
    result = fit(found.view(2, 4, 6))
    explained = total = 0.0
    for axis in range(2):
        x, y = where[axis].numpy(), found[axis].numpy()
        slope, intercept = np.polyfit(x, y, 1)
        assert result.slope[axis] == pytest.approx(slope)
        assert result.shift[axis] == pytest.approx(slope * 0.5 + intercept - 0.5)
        assert result.correlation[axis] == pytest.approx(np.corrcoef(x, y)[0, 1])
        explained += ((slope * x + intercept - y.mean()) ** 2).sum()
        total += ((y - y.mean()) ** 2).sum()
    assert result.explained == pytest.approx(explained / total)


SIZES = [((14, 14), (224, 224)), ((8, 14, 14), (16, 224, 224)), ((4, 12), (32, 96)), ((20,), (80,))]


@pytest.mark.parametrize("n_prefix", [0, 1, 5])
@pytest.mark.parametrize(("grid", "size"), SIZES)
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_grid_is_found_without_having_been_seen(grid, size, n_prefix, noise) -> None:
    """However little of the centre is the position's own, as where attention mixes all of them."""
    generator = torch.Generator().manual_seed(1)
    where = 0.2 * (coordinates(grid) - 0.5) + 0.5
    where = torch.cat([torch.full((len(grid), n_prefix), 0.5), where], 1)
    draws = where + 0.2 * noise * torch.randn(4, *where.shape, generator=generator)
    shape = torch.Size((1, where.shape[1], 8))
    judged = choose(draws.double(), layouts(TOKENS, shape, torch.Size(size), []))
    assert judged.layout is not None, judged.problem
    assert judged.layout.grid == grid
    assert (judged.layout.n_prefix, judged.layout.n_suffix) == (n_prefix, 0)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n", [4, 16, 49, 256])
def test_centres_anywhere_follow_no_grid(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    same = torch.rand(1, 2, n, generator=generator).expand(16, -1, -1)
    assert (
        choose(
            same.double(), layouts(TOKENS, torch.Size((1, n, 8)), torch.Size((224, 224)), [])
        ).layout
        is None
    )


@pytest.mark.parametrize("by", [(0, 1), (1, 0), (0, -2)])
def test_a_grid_whose_rows_are_shifted_is_not_taken(by: tuple[int, int]) -> None:
    """One more token before the patches than the grid leaves room for."""
    where = coordinates((14, 14)).view(2, 14, 14).roll(by, (1, 2)).flatten(1)
    found = where.double().expand(4, -1, -1)
    judged = choose(found, [Layout(TOKENS, (14, 14))])
    if by[1]:
        assert judged.layout is None
        assert "do not lie" in judged.problem


def test_forms_of_shapes() -> None:
    assert forms(torch.Size((2, 5, 7, 7)), 2, 2)[0] == MAPS
    assert len(forms(torch.Size((2, 7, 7, 5)), 2, 2)) == 2
    assert forms(torch.Size((2, 50, 8)), 2, 2) == [TOKENS]
    assert forms(torch.Size((50, 2, 8)), 2, 2) == [TOKENS_FIRST]
    assert forms(torch.Size((2, 1024, 1)), 2, 2) == []
    assert forms(torch.Size((2, 512, 1, 1)), 2, 2) == []
    assert forms(torch.Size((6, 8, 7, 7)), 2, 2) == []


def test_transforms_of_layouts() -> None:
    assert Layout(MAPS, (7, 7)).transform is None
    last = forms(torch.Size((1, 7, 7, 5)), 1, 2)[1]
    assert Layout(last, (7, 7)).transform is channels_first
    values = torch.rand(12, 2, 5)
    layout = Layout(TOKENS_FIRST, (2, 5), 1, 1)
    assert layout.transform.func is tokens_to_grid
    expected = values[1:11].permute(1, 2, 0).reshape(2, 5, 2, 5)
    assert torch.equal(layout.transform(values), expected)
    chosen = torch.zeros(2, 5, dtype=torch.bool)
    chosen[1, 3] = True
    (token,) = layout.values_at(chosen)[:, 0, 0].nonzero().tolist()
    assert token == [9]
