from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_groupcam.apps.explorer._networks import Models, layers_with_positions, watched
from captum_groupcam.networks.acceleration import Accelerated
from tests.apps.explorer.conftest import LITE0, ON_FEW_CHANNELS, RANDOM
from tests.toy_networks import hooks


def test_models_are_loaded_once(models: Models) -> None:
    assert models.load(LITE0).network is models.load(LITE0, ON_FEW_CHANNELS).network
    with pytest.raises(ValueError, match=r"Unknown model 'resnet50': expected one of efficientnet"):
        models.load("resnet50")
    with pytest.raises(ValueError, match=r"no layer 'blocks'; did you mean _blocks"):
        models.load(LITE0, "blocks")


def test_queries_are_answered_by_a_faster_copy_where_there_is_something_to_fold(
    models: Models,
) -> None:
    fast = models.asked(LITE0)
    assert isinstance(fast.network, Accelerated)
    assert models.asked(LITE0, ON_FEW_CHANNELS).network is fast.network
    assert str(fast.layer) == models.default_layer(LITE0)
    assert models.asked(RANDOM) is models.load(RANDOM)


def test_networks_that_are_loaded_already(models: Models) -> None:
    loaded = models.load(RANDOM)
    own = Models([loaded, LITE0])
    assert own.names == ["squeezenet1_1", LITE0]
    assert own.load("squeezenet1_1") is loaded
    with pytest.raises(ValueError, match=r"different names, at least one; got squeezenet1_1, sq"):
        Models([loaded, loaded])
    with pytest.raises(ValueError, match=r"at least one; got none"):
        Models([])


def test_weights_follow_the_name(models: Models) -> None:
    assert type(models.load(RANDOM).network).__name__ == "SqueezeNet"
    assert models.default_layer(RANDOM) == "features"
    assert models.default_layer(LITE0) == "input of _avg_pooling"


def test_layers_of_a_model(models: Models) -> None:
    layers = models.layers(LITE0)
    assert layers.index("_conv_stem") < layers.index("_conv_head")
    assert ON_FEW_CHANNELS in layers
    assert not {"_fc", "_avg_pooling", "_relu"} & set(layers)


def test_layers_that_are_no_choice() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 3)
            self.twice = nn.ReLU()
            self.pooling = nn.AdaptiveAvgPool2d(1)
            self.unused = nn.Conv2d(3, 4, 3)
            self.head = nn.Linear(4, 2)

        def forward(self, inputs):
            maps = self.twice(self.twice(self.convolution(inputs)))
            return self.head(self.pooling(maps).flatten(1))

    network = Network()
    assert layers_with_positions(network, torch.rand(1, 3, 8, 8)) == ["convolution"]
    assert hooks(network).total() == 0


def test_watching_leaves_no_hook() -> None:
    network = nn.Linear(2, 2)
    with watched(network, lambda _: None) as queries:
        network(torch.zeros(3, 2))
        network(torch.zeros(2, 2))
        assert queries() == 5
    assert hooks(network).total() == 0
