"""Networks whose output depends on the input by their graph, but not by their numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam.networks import find_layer


class Dying(nn.Module):
    """The second part of its features is constant, unless something leads past it."""

    def __init__(self, *, shortcut: bool, scale: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.fc, self.shortcut = nn.Linear(8, 5), shortcut
        with torch.no_grad():
            self.second.weight.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.second(x)
        return self.fc((y + x if self.shortcut else y).mean((2, 3)))


@pytest.mark.parametrize("scale", [0.0, 1e-30])
def test_a_constant_layer_on_the_way_is_named(scale: float) -> None:
    """Every map of a layer before it would be zero, or noise of rounding."""
    with pytest.raises(ValueError, match=r"second of Dying does not change with the input.*first"):
        find_layer(Dying(shortcut=False, scale=scale), torch.rand(1, 3, 16, 16))


def test_a_constant_branch_beside_a_shortcut_counts_for_nothing() -> None:
    """As where the last norm of a residual block begins at zero."""
    assert find_layer(Dying(shortcut=True), torch.rand(1, 3, 16, 16)).name == "first"


class WithoutGradients(Dying):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


def test_the_same_without_gradients() -> None:
    x = torch.rand(1, 3, 16, 16)
    assert find_layer(WithoutGradients(shortcut=True), x).name == "first"
    with pytest.raises(ValueError, match=r"second.* 64 of its 64 positions do not depend"):
        find_layer(WithoutGradients(shortcut=False), x)


class Attention(nn.Module):
    """Keys and values on a grid of half the resolution, as in CvT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.coarse_k, self.coarse_v = (nn.Conv2d(width, width, 2, 2) for _ in range(2))
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        grid = x[:, 1:].transpose(1, 2).unflatten(2, (8, 8))
        keys, values = (
            to(torch.cat([x[:, :1], coarse(grid).flatten(2).transpose(1, 2)], 1))
            for to, coarse in ((self.k, self.coarse_k), (self.v, self.coarse_v))
        )
        return (self.q(x) @ keys.transpose(1, 2)).softmax(-1) @ values


class Coarse(nn.Module):
    """A class token that looks at them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.randn(1, 1, 16))
        self.norm, self.attention = nn.LayerNorm(16), Attention(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))
        return self.head((tokens + self.attention(tokens))[:, 0])


def test_keys_and_values_on_a_coarser_grid_are_part_of_their_block() -> None:
    layer = find_layer(Coarse(), torch.rand(1, 3, 32, 32))
    assert str(layer) == "input of attention.coarse_k"
    assert layer.reshape_transform is None
