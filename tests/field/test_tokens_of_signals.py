"""Transformers over sequences: N x C x L or N x L x C in, tokens N x T x K inside."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import GradCAM, GroupCAM, HiResCAM, LayerCAM, ScoreCAM
from captum_groupcam.networks import find_layer, find_reshape_transform
from captum_groupcam.networks.transformers import channels_first

FORMULAS = [GradCAM, HiResCAM, LayerCAM]
MASKED = [GroupCAM, ScoreCAM]
pytestmark = pytest.mark.filterwarnings("ignore:The maps of samples")


class Sequence(nn.Module):
    """A transformer over the patches of a signal; ``last`` if it takes N x L x C."""

    def __init__(self, *, patch: int = 1, last: bool = False, n_class: int = 0, width=32) -> None:
        super().__init__()
        self.patch, self.last = patch, last
        self.embed = nn.Linear(4 * patch, width)
        self.others = nn.Parameter(torch.randn(1, n_class, width))
        self.block = nn.TransformerEncoderLayer(width, 4, 32, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.last else x.transpose(1, 2)  # N x L x C
        tokens = self.embed(x.unflatten(1, (-1, self.patch)).flatten(2))
        tokens = torch.cat([self.others.expand(len(x), -1, -1), tokens], 1)
        return self.head(self.block(tokens).mean(1))


class WithChannelsFirst(nn.Module):
    """The same network, with the tokens as N x K x T at a layer: what to compare with."""

    def __init__(self, net: Sequence) -> None:
        super().__init__()
        self.net, self.maps = net, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        net = self.net
        x = x if net.last else x.transpose(1, 2)
        tokens = net.block(net.embed(x.unflatten(1, (-1, net.patch)).flatten(2)))
        return net.head(self.maps(tokens.transpose(1, 2)).mean(2))


@pytest.mark.parametrize("width", [8, 32, 64])
@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("method", [*FORMULAS, *MASKED])
def test_tokens_are_not_taken_for_channels(method, patch, width) -> None:
    torch.manual_seed(0)
    net, x = Sequence(patch=patch, width=width).eval(), torch.randn(2, 4, 40)
    with pytest.raises(ValueError, match=r"come before the channels.*find_reshape_transform"):
        method(net, net.block).attribute(x, 1)
    other = WithChannelsFirst(net).eval()
    expected = method(other, other.maps).attribute(x, 1)
    found = find_reshape_transform(net, net.block, x)
    for transform in (found, channels_first):
        maps = method(net, net.block).attribute(x, 1, reshape_transform=transform)
        torch.testing.assert_close(maps, expected)


def test_the_layer_is_found_with_its_transform() -> None:
    torch.manual_seed(0)
    net, x = Sequence(patch=2, n_class=1).eval(), torch.randn(2, 4, 40)
    layer = find_layer(net, x)
    maps = GradCAM(net, layer.module).attribute(x, 1, **layer.keywords)
    assert maps.shape == (2, 1, 20)
    assert find_reshape_transform(net, net.block, x).keywords == {"grid": (20,), "n_prefix": 1}
    with pytest.raises(ValueError, match="come before the channels"):
        GradCAM(net, net.block).attribute(x, 1)


@pytest.mark.parametrize("method", FORMULAS)
def test_positions_before_channels_in_the_input_too(method) -> None:
    torch.manual_seed(0)
    net, x = Sequence(last=True).eval(), torch.randn(2, 40, 4)
    with pytest.raises(ValueError, match="come before the channels"):
        method(net, net.block).attribute(x, 1)
    other = WithChannelsFirst(net).eval()
    maps = method(net, net.block).attribute(x, 1, reshape_transform=channels_first)
    torch.testing.assert_close(maps, method(other, other.maps).attribute(x, 1))


def test_the_search_says_how_a_signal_lies() -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"A signal is N x C x L: if this one is N x L x C"):
        find_layer(Sequence(last=True).eval(), torch.randn(2, 40, 4))


@pytest.mark.filterwarnings("ignore:An input of shape .* looks as if its channels came last")
@pytest.mark.parametrize("method", MASKED)
def test_masks_do_not_lie_over_channels(method) -> None:
    torch.manual_seed(0)
    net, x = Sequence(last=True).eval(), torch.randn(2, 40, 4)
    with pytest.raises(ValueError, match=r"N x L x C\. Expected N x C x L"):
        method(net, net.block).attribute(x, 1, reshape_transform=channels_first)


class Convolutions(nn.Module):
    """Channels first, in a module whose type does not tell."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv1d(4, channels, 9, stride, 4), nn.ReLU())
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(2))


@pytest.mark.parametrize(("channels", "stride"), [(40, 1), (8, 4), (64, 8), (10, 4)])
@pytest.mark.parametrize("method", [GradCAM, GroupCAM])
def test_channels_first_are_no_alarm(method, channels, stride) -> None:
    net, x = Convolutions(channels, stride).eval(), torch.randn(1, 4, 40)
    assert method(net, net.features).attribute(x, 1).shape[:2] == (1, 1)


class Values(nn.Module):
    """A sequence of single numbers, N x L x 1."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(1, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x).relu().mean(1))


class Expanded(nn.Module):
    """Four tokens of what has no positions, N x C x 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand, self.hidden = nn.Linear(channels, 32), nn.Linear(8, 8)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.expand(x.flatten(1)).view(-1, 4, 8)).relu().flatten(1))


@pytest.mark.filterwarnings("ignore:An input of shape .* looks as if its channels came last")
@pytest.mark.parametrize("method", [*FORMULAS, *MASKED])
def test_one_channel_after_the_positions(method) -> None:
    torch.manual_seed(0)
    net, x = Values().eval(), torch.randn(2, 32, 1)
    with pytest.raises(ValueError, match="the 32 positions come before the channels"):
        method(net, net.hidden).attribute(x, 1)


@pytest.mark.filterwarnings("ignore:An input of shape .* looks as if its channels came last")
@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("method", [*FORMULAS, *MASKED])
def test_an_input_of_one_position_places_nothing(method, channels) -> None:
    torch.manual_seed(0)
    net, x = Expanded(channels).eval(), torch.randn(2, channels, 1)
    maps = method(net, net.hidden).attribute(x, 1)
    assert maps.shape == (2, 1, 1 if method in MASKED else 8)
