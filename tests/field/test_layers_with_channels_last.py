"""A layer of N x spatial x K without a transform: its grid does not have the input's sides."""

from __future__ import annotations

import warnings

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from captum_groupcam import AblationCAM, EigenCAM, GradCAM, GroupCAM, ScoreCAM
from captum_groupcam.attr.several_layers import SeveralLayers
from captum_groupcam.masking.call import check_grid
from captum_groupcam.methods import METHODS
from captum_groupcam.networks import channels_first

ASKED = r"shape \(1, 3, 4, 768\).*96 x 128.*reshape_transform=.*channels_first"


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 768, 32, stride=32)
        self.norm = nn.LayerNorm(768)
        self.head = nn.Linear(768, 5)

    def forward(self, x):
        return self.head(self.norm(self.patches(x).movedim(1, -1)).mean((1, 2)))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Last().eval()


IMAGES = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", [AblationCAM, EigenCAM, GradCAM, GroupCAM, ScoreCAM])
def test_every_method_asks_for_the_transform(method, network):
    with pytest.raises(ValueError, match=ASKED):
        method(network, network.norm).attribute(IMAGES, 1)


def test_with_it_there_is_a_map(network):
    maps = GradCAM(network, network.norm).attribute(IMAGES, 1, reshape_transform=channels_first)
    assert maps.shape == (1, 1, 3, 4)


@pytest.mark.parametrize("name", ["layer_gradient_x_activation", "layer_cam", "group_cam"])
def test_by_name(name, network):
    with pytest.raises(ValueError, match=ASKED):
        METHODS[name](network, network.norm)(IMAGES, 1)


def test_captums_own_in_several_layers(network):
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 768\).*channels_first"):
        SeveralLayers(LayerGradCam, network, [network.norm]).attribute(IMAGES, 1)


@pytest.mark.parametrize(
    ("layer", "image"),
    [
        ((1, 14, 14, 384), (224, 224)),
        ((1, 7, 7, 768), (224, 224)),
        ((1, 10, 7, 768), (300, 224)),
        ((1, 8, 7, 7, 768), (16, 224, 224)),  # frames keep another pace than sides
    ],
)
def test_shapes_of_channels_last(layer, image):
    with pytest.raises(ValueError, match="channels_first"):
        check_grid(torch.zeros(layer), (torch.zeros(1, 3, *image),))


@pytest.mark.parametrize(
    ("layer", "side"), [((1, 24, 24, 96), 96), ((1, 28, 28, 192), 224), ((1, 56, 56, 96), 224)]
)
def test_shapes_that_leave_it_open(layer, side):
    with pytest.warns(UserWarning, match="channels_first"):
        check_grid(torch.zeros(layer), (torch.zeros(1, 3, side, side),))


@pytest.mark.parametrize(
    ("layer", "image"),
    [
        ((1, 24, 24, 24), (96, 96)),
        ((1, 512, 7, 7), (224, 224)),
        ((1, 7, 7, 7), (224, 224)),
        ((1, 64, 1, 1024), (128, 1024)),  # a spectrogram whose frequencies are pooled
        ((1, 32, 4, 1024), (128, 1024)),
        ((1, 16, 1, 256), (22, 1024)),  # the channels of an EEG
        ((1, 256, 32, 1), (32, 256)),
        ((1, 768, 1, 25), (32, 100)),  # a line of text
        ((1, 32, 128, 32), (128, 128)),
        ((1, 64, 2, 7, 7), (16, 112, 112)),
        ((1, 1, 4, 1024), (128, 1024)),
        ((1, 32, 96), (3, 96)),
    ],
)
def test_grids_that_are_honest(layer, image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_grid(torch.zeros(layer), (torch.zeros(1, 3, *image),))
