"""A map of zeros is a warning, whatever the method."""

from __future__ import annotations

import warnings

import pytest
import torch
from captum.attr import Saliency
from torch import Tensor, nn

from captum_groupcam import GradCAM, LayerCAM
from captum_groupcam.attr.several_layers import SeveralLayers
from captum_groupcam.attr.smoothed import Smoothed
from captum_groupcam.methods import METHODS
from tests.toy_networks import FORMULAS, classifier, images

ZERO = r"The maps of samples \[1\] are zero: activations or gradients"


class Gated(nn.Module):
    """Sees nothing of a dark image: its activations there are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU())
        nn.init.uniform_(self.features[0].weight, 0, 1)
        self.pooling, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)
        nn.init.uniform_(self.head.weight, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pooling(self.features(x)).flatten(1))


@pytest.fixture
def bright_and_dark() -> Tensor:
    x = images(2, 12, 12)
    x[1] = 0
    return x


@pytest.mark.parametrize("method", FORMULAS)
def test_formulas_of_a_layer(method, bright_and_dark: Tensor) -> None:
    network = Gated().eval()
    with pytest.warns(UserWarning, match=ZERO):
        maps = method(network, network.features).attribute(bright_and_dark, 1)
    assert maps[0].any()
    assert not maps[1].any()


@pytest.mark.parametrize("name", ["grad_cam", "layer_cam", "saliency", "input_x_gradient"])
def test_the_registry(name: str) -> None:
    class Dead(Gated):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * x.flatten(1).amax(1, keepdim=True).clamp(0, 1).round()

    network, x = Dead().eval(), images(2, 12, 12)
    x[1] = -x[1].abs() - 1  # below zero, where nothing is left of the output
    with pytest.warns(UserWarning, match=ZERO):
        maps = METHODS[name](network, network.features)(x, 1)
    assert maps[0].any()
    assert not maps[1].any()


def test_only_positive_ones() -> None:
    network = classifier()
    with torch.no_grad():
        network.head[-1].weight.fill_(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradCAM(network, network.features).attribute(images(1), 1)
    with pytest.warns(UserWarning, match=r"samples \[0\] are zero: .*relu_attributions=True"):
        GradCAM(network, network.features).attribute(images(1), 1, relu_attributions=True)


def test_each_input_that_has_a_call_of_its_own() -> None:
    network = Gated().eval()

    def both(a: Tensor, b: Tensor) -> Tensor:
        return network(a) + network(b)

    x = images(1, 12, 12)
    with pytest.warns(UserWarning, match=r"samples \[0\] are zero: activations or gradients"):
        maps = GradCAM(both, network.features).attribute((x, x * 0), 1, layer_call=(0, 1))
    assert maps[0].any()


def test_once_for_what_is_asked_several_times(bright_and_dark: Tensor) -> None:
    network = Gated().eval()
    asked = [
        lambda: Smoothed(GradCAM(network, network.features)).attribute(bright_and_dark, 1),
        lambda: SeveralLayers(LayerCAM, network, [network.features[1], network.features]).attribute(
            bright_and_dark, 1
        ),
        lambda: METHODS["layer_cam"](network, network.features, smooth="flips")(bright_and_dark, 1),
        lambda: Smoothed(Saliency(lambda x: network(x) * 0)).attribute(bright_and_dark, target=1),
    ]
    for ask in asked:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ask()
        said = [str(w.message) for w in caught if "are zero" in str(w.message)]
        assert len(said) == 1, said
