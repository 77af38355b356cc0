"""Networks that were built inside of ``torch.inference_mode``, through which no gradients lead."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from captum_groupcam import (
    RISE,
    AblationCAM,
    ConsensusGroupCAM,
    FullGrad,
    GradCAM,
    GroupCAM,
    ScoreCAM,
    ShapleyCAM,
)
from captum_groupcam.methods import METHODS
from captum_groupcam.networks import find_layer
from tests.toy_networks import classifier, images


@pytest.fixture
def network() -> nn.Module:
    with torch.inference_mode():
        return classifier(seed=2)


OF_GRADIENTS = {
    "GroupCAM": lambda net, x: GroupCAM(net, net.features).attribute(x, 1),
    "GradCAM": lambda net, x: GradCAM(net, net.features).attribute(x, 1),
    "GradCAM at the input": lambda net, x: GradCAM(net, net.features).attribute(
        x, 1, attribute_to_layer_input=True
    ),
    "ConsensusGroupCAM": lambda net, x: ConsensusGroupCAM(net, net.features).attribute(x, 1),
    "ShapleyCAM": lambda net, x: ShapleyCAM(net, net.features).attribute(x, 1),
    "FullGrad": lambda net, x: FullGrad(net).attribute(x, 1),
    "saliency": lambda net, x: METHODS["saliency"](net)(x, 1),
    "integrated_gradients": lambda net, x: METHODS["integrated_gradients"](net)(x, 1),
}


@pytest.mark.parametrize("method", OF_GRADIENTS)
def test_it_is_said_what_to_do(method: str, network: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"torch\.inference_mode.*copy\.deepcopy"):
        OF_GRADIENTS[method](network, images(2, 12, 12))


@pytest.mark.parametrize("method", OF_GRADIENTS)
def test_and_that_helps(method: str, network: nn.Module) -> None:
    x = images(2, 12, 12)
    OF_GRADIENTS[method](copy.deepcopy(network), x)


def test_methods_without_gradients_take_it(network: nn.Module) -> None:
    x, plain = images(2, 12, 12), classifier(seed=2)
    for explain in (
        lambda net: GroupCAM(net, net.features).attribute(x, 1, gradient_free=True),
        lambda net: ScoreCAM(net, net.features).attribute(x, 1),
        lambda net: AblationCAM(net, net.features).attribute(x, 1),
        lambda net: RISE(net).attribute(x, target=1, n_masks=8),
    ):
        torch.testing.assert_close(explain(network), explain(plain))
    assert str(find_layer(network, x)) == str(find_layer(plain, x))
