"""A layer of N x H x W x K whose sizes do not tell that its channels come last."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import GradCAM, GroupCAM
from captum_groupcam.networks import channels_first


class Last(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width)
        self.act, self.conv = nn.GELU(), nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.act(self.norm(self.embed(x).permute(0, 2, 3, 1)))
        return self.head(self.conv(maps.permute(0, 3, 1, 2)).tanh().mean((2, 3)))


@pytest.mark.parametrize("method", [GradCAM, GroupCAM])
@pytest.mark.parametrize("layer", ["norm", "act"])
@pytest.mark.parametrize(("width", "size"), [(4, (64, 64)), (16, (64, 64)), (16, (64, 96))])
def test_channels_are_not_taken_for_columns(method, layer, width, size) -> None:
    torch.manual_seed(0)
    net, x = Last(width).eval(), torch.rand(1, 3, *size)
    with pytest.raises(ValueError, match=r"positions come before the channels.*channels_first"):
        method(net, getattr(net, layer)).attribute(x, 1)
    assert GradCAM(net, getattr(net, layer)).attribute(
        x, 1, reshape_transform=channels_first
    ).shape == (1, 1, size[0] // 4, size[1] // 4)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)) + x)


@pytest.mark.parametrize(("side", "passes"), [(32, 1), (16, 1), (8, 6)])
def test_blocks_of_convolutions_are_asked_only_where_nothing_tells(side, passes) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), HEAD)
    assert _passes(net.eval(), net[1], torch.rand(1, 3, side, side)) == passes


HEAD = nn.Linear(8, 5)


def _passes(net: nn.Module, layer: nn.Module, x: Tensor) -> int:
    counted = []
    with net.register_forward_hook(lambda *_: counted.append(1)):
        GradCAM(net, layer).attribute(x, 1)
    return len(counted)


@pytest.mark.parametrize("conv", [nn.Conv1d, nn.Conv2d])
def test_an_activation_function_is_asked_what_runs_before_it(conv) -> None:
    torch.manual_seed(0)
    features = nn.Sequential(conv(3, 8, 3, padding=1), nn.ReLU())
    net = nn.Sequential(features, nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), HEAD)
    x = torch.rand(1, 3, *[8] * (1 if conv is nn.Conv1d else 2))
    assert [_passes(net.eval(), layer, x) for layer in (features, features[1])] == [1, 1]
