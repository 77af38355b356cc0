"""What maps agree on, against the equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_groupcam.attr.functional.agreement import effect_weights, geometric_mean


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-30])  # how many times larger counts
@pytest.mark.parametrize(
    ("effects", "exponent", "expected"),
    [
        ([0.2, 0.1], 2.0, [0.8, 0.2]),
        ([0.1, 0.2], 4.0, [1 / 17, 16 / 17]),
        ([0.3, -0.1], 4.0, [1.0, 0.0]),
        ([-0.3, -0.1], 4.0, [0.5, 0.5]),
        ([0.0, 0.0], 4.0, [0.5, 0.5]),
        ([0.1, 0.1, 0.2], 1.0, [0.25, 0.25, 0.5]),
    ],
)
def test_weights_are_shares_of_powers(
    effects: list[float], exponent: float, expected: list[float], scale: float
) -> None:
    maps = torch.ones(1, len(effects), 3)
    found = effect_weights(scale * torch.tensor([effects]), maps, exponent)
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_a_map_that_shows_nothing_has_no_weight() -> None:
    maps = torch.ones(3, 2, 4)
    maps[0, 0] = maps[1] = 0
    effects = torch.tensor([[0.0, -0.1], [0.0, 0.0], [0.0, -0.1]])
    expected = torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    torch.testing.assert_close(effect_weights(effects, maps), expected)


@pytest.mark.parametrize("size", [(5,), (4, 3), (2, 3, 4)])
@pytest.mark.parametrize("floor", [0.02, 0.1])
def test_geometric_mean_is_its_equation(size: tuple[int, ...], floor: float) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 3, *size, generator=generator, dtype=torch.double)
    maps[0, 1] = 0
    weights = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.1, 0.9]], dtype=torch.double)
    found = geometric_mean(maps, weights, floor)
    assert found.shape == (2, 1, *size)
    for sample in range(2):
        product = np.ones(size)
        for one, weight in zip(maps[sample].numpy(), weights[sample].tolist(), strict=True):
            product = product * (one + floor) ** weight
        np.testing.assert_allclose(found[sample, 0], np.maximum(product - floor, 0), atol=1e-12)


def test_one_map_alone_is_itself() -> None:
    maps = torch.rand(2, 1, 6, 6)
    torch.testing.assert_close(geometric_mean(maps, torch.ones(2, 1)), maps)
