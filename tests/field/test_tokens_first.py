"""Tokens before samples, T x N x C, as OpenAI's CLIP and PyTorch's own layers have them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import ConsensusGroupCAM, GradCAM, GroupCAM, LayerCAM, ScoreCAM
from captum_groupcam.networks import TargetLayer, check_layer, find_layer, tokens_to_grid


class TokensFirst(nn.Module):
    def __init__(self, *, class_token: bool) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, 16)) if class_token else None
        layer = nn.TransformerEncoderLayer(16, 2, 32)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).permute(2, 0, 1)
        if self.token is None:
            return self.head(self.encoder(tokens).mean(0))
        return self.head(self.encoder(torch.cat([self.token.expand(-1, len(x), -1), tokens]))[0])


@pytest.mark.parametrize("n_samples", [1, 2, 4])
def test_averaged_tokens(n_samples: int) -> None:
    net, x = TokensFirst(class_token=False).eval(), torch.rand(n_samples, 3, 32, 48)
    layer = find_layer(net, x)
    assert layer.name == "encoder"
    assert layer.reshape_transform.keywords == {
        "grid": (4, 6),
        "n_prefix": 0,
        "batch_first": False,
    }
    tokens = net.encoder(net.embed(x).flatten(2).permute(2, 0, 1))
    expected = tokens.permute(1, 2, 0).unflatten(2, (4, 6))
    assert torch.equal(layer.to_grid(tokens), expected)


def test_a_class_token() -> None:
    """A block that ends in a norm: the last one before all tokens are looked at is its input."""
    net = TokensFirst(class_token=True).eval()
    layer = find_layer(net, torch.rand(1, 3, 32, 48))
    assert layer.name == "encoder.layers.0"
    assert layer.reshape_transform.keywords["n_prefix"] == 1
    assert layer.reshape_transform.keywords["batch_first"] is False


class WithGrid(nn.Module):
    """The same network, with a layer that has its tokens on their grid."""

    def __init__(self, network: TokensFirst) -> None:
        super().__init__()
        self.network, self.maps = network, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        net = self.network
        tokens = net.embed(x).flatten(2).permute(2, 0, 1)
        maps = net.encoder(tokens).permute(1, 2, 0).unflatten(2, (4, 6))
        return net.head(self.maps(maps + 0).flatten(2).mean(2))


@pytest.mark.filterwarnings("ignore:The maps of samples")
@pytest.mark.parametrize("internal_batch_size", [1, 2, None])
@pytest.mark.parametrize("method", [GroupCAM, ConsensusGroupCAM, ScoreCAM, GradCAM, LayerCAM])
def test_maps_are_those_of_the_grid(method, internal_batch_size) -> None:
    torch.manual_seed(0)
    net, x = TokensFirst(class_token=False).eval(), torch.rand(3, 3, 32, 48)
    target, options = torch.tensor([0, 3, 4]), {"internal_batch_size": internal_batch_size}
    layer = find_layer(net, x[:1])  # the transform does not depend on the number of samples
    maps = method(net, layer.module).attribute(x, target, **layer.keywords, **options)
    same = WithGrid(net).eval()
    expected = method(same, same.maps).attribute(x, target, **options)
    torch.testing.assert_close(maps, expected)


def test_as_many_samples_as_tokens() -> None:
    """T x N x C and N x T x C of one shape: only one of them follows the input."""
    net, x = TokensFirst(class_token=False).eval(), torch.rand(16, 3, 32, 32)

    def right(tokens: Tensor) -> Tensor:
        return tokens_to_grid(tokens, (4, 4), batch_first=False)

    def wrong(tokens: Tensor) -> Tensor:
        return tokens_to_grid(tokens, (4, 4))

    found = [
        check_layer(net, TargetLayer.of(net, "encoder", reshape_transform=one), x).fits
        for one in (right, wrong)
    ]
    assert found == [True, False]
