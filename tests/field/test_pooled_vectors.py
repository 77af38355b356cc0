"""A pooled vector, N x C x 1, looks like C tokens on a square grid where C is a square."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam.networks import find_layer, find_reshape_transform, tokens_to_grid


class Pooled(nn.Module):
    """As Hugging Face's Swin ends: tokens, a norm, and a pooling that is a module."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, channels, 8, stride=8)
        self.norm = nn.LayerNorm(channels)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.embed(x).flatten(2).transpose(1, 2))
        return self.head(self.pool(tokens.transpose(1, 2)).flatten(1))


@pytest.mark.parametrize("channels", [16, 64, 256, 784, 1024, 1040])
def test_the_layer_is_the_norm_before_the_pooling(channels: int) -> None:
    net, x = Pooled(channels).eval(), torch.rand(1, 3, 32, 32)
    assert net.pool(torch.rand(1, channels, 16)).shape == (1, channels, 1)
    layer = find_layer(net, x)
    assert layer.name == "norm"
    assert layer.reshape_transform.func is tokens_to_grid
    assert layer.reshape_transform.keywords == {"grid": (4, 4), "n_prefix": 0}


class Widened(nn.Module):
    """The same with a vector of several values a channel, by which its shape gives nothing away."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 8, stride=8)
        self.spread = nn.Linear(16, 16 * 4)
        self.act = nn.GELU()
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        vector = self.embed(x).mean((2, 3))
        return self.head(self.act(self.spread(vector)).unflatten(1, (16, 4))).mean(1)


def test_a_vector_in_parts_is_no_grid() -> None:
    net, x = Widened().eval(), torch.rand(1, 3, 32, 32)
    assert net.head(torch.rand(1, 16, 4)).shape == (1, 16, 5)  # as 4 x 4 patches would be
    assert find_layer(net, x).name == "embed"
    with pytest.raises(ValueError, match=r"head gives 1 x 16 x 5: its positions do not lie"):
        find_reshape_transform(net, net.head, x)
