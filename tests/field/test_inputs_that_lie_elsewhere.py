"""Several inputs, of which one does not lie over the layer: its map would mean nothing."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam import GradCAM, GroupCAM, ScoreCAM
from tests.toy_networks import Attending, images, seeded

METHODS = [GradCAM, GroupCAM, ScoreCAM]


class Two(nn.Module):
    """What two images give, joined at the layer ``here``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 8, 3, 2, padding=1) for _ in range(2))
        self.here = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        maps = self.joined(self.first(x).relu(), self.second(y).relu())
        return self.head(self.here(maps).mean((2, 3)))


class Scaling(Two):
    """FiLM: the mean of the second scales the channels of the first."""

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        return x * (1 + 10 * y.mean((2, 3), keepdim=True))


class Conditions(Two):
    """The second is squeezed to a few features, which are added everywhere."""

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        return x + F.adaptive_max_pool2d(y, 1)


class Gating(Two):
    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y.sigmoid()


class Smaller(Two):
    """The second has half the resolution of the first."""

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        return x + F.interpolate(y, x.shape[2:], mode="bilinear")


class GlobalAttention(Two):
    """Each position of the layer depends on all of both."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Attending(8) for _ in range(4)))

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        tokens = (x + y).flatten(2).mT
        return self.blocks(tokens).mT.unflatten(2, x.shape[2:])


def pair(network: Two) -> tuple[Tensor, Tensor]:
    size = 8 if isinstance(network, Smaller) else 16
    return images(2, 16, 16), images(2, size, size, seed=1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [Scaling, Conditions])
@pytest.mark.parametrize("method", METHODS)
def test_it_is_named(method, kind, seed: int) -> None:
    network = seeded(kind, seed).eval()
    said = r"do not lie where those of input 1 are.*Pass it as additional_forward_args"
    with pytest.warns(UserWarning, match=said):
        method(network, network.here).attribute(pair(network), 1, relu_attributions=False)


@pytest.mark.parametrize("kind", [Scaling, Conditions])
@pytest.mark.parametrize("method", METHODS)
def test_what_it_says_gives_the_map_of_the_other(method, kind) -> None:
    network = seeded(kind).eval()
    x, y = pair(network)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = method(network, network.here).attribute(x, 1, y, relu_attributions=False)
        for n in range(2):
            one = y[n : n + 1]
            alone = method(
                lambda x, one=one: network(x, one.expand(len(x), -1, -1, -1)), network.here
            )
            expected = alone.attribute(x[n : n + 1], 1, relu_attributions=False)
            torch.testing.assert_close(found[n : n + 1], expected)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [Two, Gating, Smaller, GlobalAttention])
def test_inputs_over_the_layer_are_no_alarm(kind, seed: int) -> None:
    network = seeded(kind, seed).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = GradCAM(network, network.here).attribute(pair(network), 1)
    assert all(one.abs().amax() > 0 for one in maps)


def test_signals_too() -> None:
    class Signals(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.here, self.other = nn.Conv1d(3, 8, 3), nn.Conv1d(3, 8, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            scale = self.other(y).relu().mean(2, keepdim=True)
            return self.here(x * (1 + scale[:, :3])).relu().mean(2)

    network = seeded(Signals).eval()
    x, y = images(1, 32), images(1, 32, seed=1)
    with pytest.warns(UserWarning, match="those of input 1 are"):
        GradCAM(network, network.here).attribute((x, y), 1)
