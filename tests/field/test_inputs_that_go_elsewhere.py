"""The input of a layer that other parts of the network get, too: all ways to the output count."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from captum_groupcam import (
    AblationCAM,
    EigenGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    GroupCAM,
    HiResCAM,
    LayerCAM,
    ShapleyCAM,
)
from captum_groupcam.networks import find_layer


class Branches(nn.Module):
    """Class 1 is decided by the second branch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.here = nn.Identity()
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(16, 5)
        self.head.weight.data[1, :8] = 0

    def forward(self, x):
        y = self.here(self.stem(x).relu())
        parts = (self.first(y).relu(), self.second(y).relu())
        return self.head(torch.cat([part.mean((2, 3)) for part in parts], 1))


class Shortcut(nn.Module):
    """A residual block without a module around it; the shortcut may be taken first."""

    def __init__(self, first: bool = False, in_place: bool = False, curved: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.here = nn.Identity()
        self.first = nn.Sequential(nn.ReLU(inplace=in_place), nn.Conv2d(8, 8, 3, padding=1))
        self.head = nn.Linear(8, 5)
        self.shortcut_first, self.curved = first, curved

    def forward(self, x):
        y = self.here(self.stem(x).tanh())
        kept = 2 * (y.exp() if self.curved else y) if self.shortcut_first else None
        y = self.first(y.clone()) + 2 * y if kept is None else self.first(y) + kept
        return self.head(y.relu().mean((2, 3)))


NETWORKS = {
    "branches": Branches,
    "shortcut first": lambda: Shortcut(first=True),
    "shortcut first, curved": lambda: Shortcut(first=True, curved=True),
    "shortcut first, in place": lambda: Shortcut(first=True, in_place=True),
}
METHODS = [GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, EigenGradCAM, ShapleyCAM]


@pytest.fixture(params=NETWORKS)
def network(request) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_that_of_the_tensor_itself(method, network, frozen):
    network.requires_grad_(not frozen)
    x = torch.rand(2, 3, 12, 12)
    expected = method(network, network.here).attribute(x, 1)
    assert expected.abs().max() > 0
    found = method(network, network.first).attribute(x, 1, attribute_to_layer_input=True)
    torch.testing.assert_close(found, expected)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_it_is_captums(network):
    x = torch.rand(2, 3, 12, 12)
    found = GradCAM(network, network.first).attribute(x, 1, attribute_to_layer_input=True)
    theirs = LayerGradCam(network, network.first).attribute(x, 1, attribute_to_layer_input=True)
    torch.testing.assert_close(found, theirs.detach())


def test_group_cam(network):
    x, options = torch.rand(2, 3, 12, 12), {"n_groups": 4, "relu_attributions": False}
    expected = GroupCAM(network, network.here).attribute(x, 1, **options)
    found = GroupCAM(network, network.first).attribute(
        x, 1, attribute_to_layer_input=True, **options
    )
    torch.testing.assert_close(found, expected)


def test_what_hides_channels_of_the_layer_refuses(network):
    x = torch.rand(2, 3, 12, 12)
    with pytest.raises(ValueError, match="reaches the output past the layer, too"):
        AblationCAM(network, network.first).attribute(x, 1, attribute_to_layer_input=True)
    plain = nn.Sequential(network.stem, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plain = nn.Sequential(*plain, nn.Linear(8, 5)).eval()
    maps = AblationCAM(plain, plain[2]).attribute(x, 1, attribute_to_layer_input=True)
    torch.testing.assert_close(maps, AblationCAM(plain, plain[1]).attribute(x, 1))


def test_the_layer_that_is_found_gives_the_right_map():
    torch.manual_seed(0)
    network, x = Branches().eval(), torch.rand(2, 3, 12, 12)
    layer = find_layer(network, x)
    found = GradCAM(network, layer.module).attribute(x, 1, **layer.keywords)
    torch.testing.assert_close(found, GradCAM(network, network.here).attribute(x, 1))
