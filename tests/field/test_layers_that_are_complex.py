"""Layers of complex numbers, as those of Fourier transforms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import AblationCAM, EigenCAM, GradCAM, GroupCAM, ScoreCAM
from captum_groupcam.networks.layers import find_layer
from tests.toy_networks import images, seeded


class Fourier(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(x)


class Filtered(nn.Module):
    """Scales frequencies between two convolutions, as Fourier neural operators do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.fourier, self.second = Fourier(), nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        frequencies = self.fourier(self.first(x))
        return self.head(self.second(torch.fft.irfft2(frequencies, s=x.shape[-2:])).relu())


METHODS = [GradCAM, GroupCAM, ScoreCAM, AblationCAM, EigenCAM]


@pytest.mark.parametrize("method", METHODS)
def test_it_is_named(method) -> None:
    network = seeded(Filtered).eval()
    with pytest.raises(ValueError, match=r"layer Fourier is complex, torch\.complex64.*another"):
        method(network, network.fourier).attribute(images(2), 1)


@pytest.mark.parametrize("method", METHODS)
def test_layers_beside_it_are_explained(method) -> None:
    network = seeded(Filtered).eval()
    for layer in (network.first, network.second):
        assert method(network, layer).attribute(images(1), 1, relu_attributions=False).any()


def test_it_is_not_chosen() -> None:
    network = seeded(Filtered).eval()
    layer = find_layer(network, images(1))
    assert GradCAM(network, layer.module).attribute(images(1), 1, **layer.keywords).any()
