"""Sums that cancel: what rounding leaves is no map, and values that are alike everywhere are none.

Before a layer norm the gradients of a position's channels add up to zero, before an instance norm
those of a channel's positions.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import KPCACAM, EigenCAM, GradCAM, GroupCAM, HiResCAM, LayerCAM
from captum_groupcam.methods import METHODS
from tests.toy_networks import classifier, images

ZERO = r"samples \[0, 1\] are zero: .*what is added up cancels"
SAME = r"samples \[0, 1\] are the same everywhere"


class Normed(nn.Module):
    """Features, a norm of them, and a head that looks at positions and channels."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())
        self.norm = nn.LayerNorm(16) if norm == "layer" else nn.InstanceNorm2d(16)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(16 * 64, 5))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x) + 0.1
        if isinstance(self.norm, nn.LayerNorm):
            return self.head(self.norm(maps.movedim(1, -1)).movedim(-1, 1))
        return self.head(self.norm(maps))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_that_cancel_over_channels(dtype) -> None:
    net, x = Normed("layer").eval().to(dtype), images(2, 16, 16).to(dtype)
    influence = METHODS["internal_influence"]
    with pytest.warns(UserWarning, match=ZERO):
        maps = influence(net, net.features, n_steps=5)(x, 1)
    assert not maps.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("layer_gradient_x_activation", "grad_cam", "layer_cam"):
            assert METHODS[name](net, net.features)(x, 1).std() > 1e-5


@pytest.mark.parametrize("method", [GradCAM, GroupCAM])
def test_gradients_that_cancel_over_positions(method) -> None:
    net, x = Normed("instance").eval(), images(2, 16, 16)
    with pytest.warns(UserWarning, match=r"samples \[0, 1\] are zero"):
        maps = method(net, net.features).attribute(x, 1)
    assert not maps.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (HiResCAM, LayerCAM):
            assert other(net, net.features).attribute(x, 1).std() > 1e-5


def averaged() -> nn.Sequential:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 2, 2), nn.ReLU())
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def test_a_gradient_that_is_the_same_everywhere() -> None:
    net, x = averaged(), images(2, 13, 17)
    with pytest.warns(UserWarning, match=SAME):
        maps = METHODS["internal_influence"](net, net[0], n_steps=5)(x, 1)
    assert torch.equal(maps, maps[:, :, :1, :1].expand_as(maps))
    weights = net[-1].weight[1].sum() / net[0](x)[0, 0].numel()
    torch.testing.assert_close(maps[0, 0, 0, 0], weights.detach())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        METHODS["internal_influence"](net, net[0][1], n_steps=5)(x, 1)


@pytest.mark.parametrize("method", [EigenCAM, GradCAM])
def test_activations_that_are_the_same_everywhere(method) -> None:
    net, x = averaged(), torch.full((2, 3, 13, 17), 0.3)
    with pytest.warns(UserWarning, match=SAME if method is GradCAM else ZERO):
        maps = method(net, net[0]).attribute(x, 1)
    assert maps.flatten(1).std(1).amax() == 0


def test_a_small_map_is_one() -> None:
    net, x = classifier(seed=2), images(2, 13, 17)
    expected = GradCAM(net, net.features).attribute(x, 1)
    with torch.no_grad():
        net.head[-1].weight *= 1e-12
    torch.testing.assert_close(
        GradCAM(net, net.features).attribute(x, 1) * 1e12, expected, rtol=1e-4, atol=1e-6
    )


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


@pytest.mark.parametrize("method", [EigenCAM, KPCACAM])
def test_one_position_has_no_component(method) -> None:
    net = Pooled().eval()
    with pytest.raises(ValueError, match=r"one position, its shape is \(2, 8, 1, 1\)"):
        method(net, net.features).attribute(images(2, 16, 16), 1)
