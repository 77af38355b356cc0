"""Networks without gradients, quantised or otherwise: gradient-free methods explain them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import RISE, GradCAMPlusPlus, GroupCAM, ScoreCAM
from captum_groupcam.methods import METHODS
from captum_groupcam.networks.layers import find_layer
from tests.toy_networks import classifier, images, seeded

GRADIENT_FREE: dict[str, Callable[[Any, nn.Module | None, Tensor], Tensor]] = {
    "GroupCAM": lambda net, layer, x: GroupCAM(net, layer).attribute(
        x, 2, n_groups=4, relu_attributions=False, gradient_free=True
    ),
    "ScoreCAM": lambda net, layer, x: ScoreCAM(net, layer).attribute(x, 2, relu_attributions=False),
    "RISE": lambda net, _, x: RISE(net).attribute(x, target=2, n_masks=20),
    "METHODS": lambda net, layer, x: METHODS["group_cam_gradient_free"](net, layer, n_groups=4)(
        x, 2
    ),
}

every_method = pytest.mark.parametrize("method", GRADIENT_FREE)


def quantised(network: nn.Module) -> nn.Module:
    """The linear layer in 8 bits."""
    quantize_dynamic = torch.ao.quantization.quantize_dynamic
    with warnings.catch_warnings():
        # Its successor, torchao, is another package.
        warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated")
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        return quantize_dynamic(network, {nn.Linear}, torch.qint8)


class Wrapped(nn.Module):
    """Calls a network in a way that leaves no gradients."""

    def __init__(self, network: nn.Module, how: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.features, self.network, self.how = network.features, network, how
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self.network, x)


def head_without_gradients(network: nn.Module, x: Tensor) -> Tensor:
    features = network.features(x)
    with torch.no_grad():
        return network.head(features)


WITHOUT_GRADIENTS = {
    "detached output": lambda network, x: network(x).detach(),
    "head under no_grad": head_without_gradients,
    "inference mode": lambda network, x: torch.inference_mode()(network)(x),
    "output of another library": lambda network, x: torch.from_numpy(
        np.array(network(x).detach().numpy())
    ),
}

every_wrapper = pytest.mark.parametrize(
    "how", WITHOUT_GRADIENTS.values(), ids=WITHOUT_GRADIENTS.keys()
)


@every_method
@every_wrapper
def test_networks_without_gradients_are_explained_alike(method, how):
    network, x = classifier(seed=2), images(3, 14, 16)
    expected = GRADIENT_FREE[method](network, network.features, x)
    found = GRADIENT_FREE[method](Wrapped(network, how), network.features, x)
    torch.testing.assert_close(found, expected)


@every_wrapper
@pytest.mark.parametrize(
    "explain",
    [
        lambda net, layer, x: GroupCAM(net, layer).attribute(x, 2),
        lambda net, layer, x: GradCAMPlusPlus(net, layer).attribute(x, 2),
    ],
    ids=["GroupCAM", "GradCAMPlusPlus"],
)
def test_with_gradients_the_error_says_what_to_do(explain, how):
    network, x = classifier(seed=2), images(3, 14, 16)
    with pytest.raises(ValueError, match=r"no gradient .* GroupCAM with gradient_free=True"):
        explain(Wrapped(network, how), network.features, x)


def test_no_grad_around_the_whole_network_takes_no_gradients_away():
    network, x = classifier(seed=2), images(3, 14, 16)
    expected = GroupCAM(network, network.features).attribute(x, 2)
    found = GroupCAM(torch.no_grad()(network.forward), network.features).attribute(x, 2)
    torch.testing.assert_close(found, expected)


@every_method
def test_dynamically_quantised_network(method):
    network, x = classifier(seed=2), images(3, 14, 16)
    expected = GRADIENT_FREE[method](network, network.features, x)
    eight_bits = quantised(copy.deepcopy(network))
    found = GRADIENT_FREE[method](eight_bits, eight_bits.features, x)
    assert not torch.equal(found, expected)  # it is quantised
    assert (found - expected).abs().max() < 0.2 * expected.abs().max()
    assert find_layer(eight_bits, x).name == find_layer(network, x).name


def test_quantised_network_with_gradients_is_refused():
    network, x = quantised(classifier(seed=2)), images(3, 14, 16)
    with pytest.raises(ValueError, match=r"as quantised ones do.*gradient_free=True"):
        GroupCAM(network, network.features).attribute(x, 2)


class Embedded(nn.Module):
    """Each pixel goes through a linear layer before the convolutions."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.pixels, self.network = nn.Sequential(nn.Linear(3, 3)), network
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.pixels(x.movedim(1, -1)).movedim(-1, 1).contiguous())


def test_what_comes_before_the_input_of_a_layer_needs_no_derivatives():
    network = seeded(lambda: Embedded(classifier(seed=2)))
    network.pixels, x = quantised(network.pixels), images(3, 14, 16)
    layer = network.network.features
    taken: list[Tensor] = []
    with layer.register_forward_pre_hook(lambda _module, args: taken.append(args[0])):
        network(x)
    (seen,) = (one.detach() for one in taken)
    expected = GradCAMPlusPlus(network.network, layer).attribute(
        seen, 2, attribute_to_layer_input=True
    )
    found = GradCAMPlusPlus(network, layer).attribute(x, 2, attribute_to_layer_input=True)
    torch.testing.assert_close(found, expected)
    assert found.flatten(1).std(1).min() > 0
