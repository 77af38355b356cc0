"""Layers that run inside of torch.func.vmap, where samples are hidden from them."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import (
    CAM,
    RISE,
    AblationCAM,
    EigenCAM,
    GradCAM,
    GroupCAM,
    ScoreCAM,
    ShapleyCAM,
)
from captum_groupcam.networks import TargetLayer, check_layer
from tests.toy_networks import classifier


class Mapped(nn.Module):
    """Features for one image at a time, or the head."""

    def __init__(self, *, features: bool) -> None:
        super().__init__()
        self.inner, self.of_features = classifier(), features

    def forward(self, x: Tensor) -> Tensor:
        if self.of_features:
            return self.inner.head(self.each(self.inner.features, x))
        return self.each(self.inner.head, self.inner.features(x))

    def each(self, module: nn.Module, rows: Tensor) -> Tensor:
        return torch.func.vmap(lambda row: module(row.unsqueeze(0)).squeeze(0))(rows)


METHODS = {
    "GradCAM": lambda f, layer: GradCAM(f, layer).attribute,
    "GroupCAM": lambda f, layer: partial(GroupCAM(f, layer).attribute, n_groups=4),
    "without gradients": lambda f, layer: partial(
        GroupCAM(f, layer).attribute, n_groups=4, gradient_free=True
    ),
    "ScoreCAM": lambda f, layer: ScoreCAM(f, layer).attribute,
    "AblationCAM": lambda f, layer: AblationCAM(f, layer).attribute,
    "EigenCAM": lambda f, layer: EigenCAM(f, layer).attribute,
    "ShapleyCAM": lambda f, layer: ShapleyCAM(f, layer).attribute,
    "CAM": lambda f, layer: CAM(f, layer).attribute,
}


@pytest.mark.parametrize("at_input", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_layer_inside_is_refused_with_what_to_do(method: str, at_input: bool) -> None:
    network, x = Mapped(features=True).eval(), torch.rand(2, 3, 16, 16)
    explain = METHODS[method](network, network.inner.features)
    with pytest.raises(ValueError, match=r"inside of a transform of torch\.func.*layer outside"):
        explain(x, target=1, attribute_to_layer_input=at_input)
    assert not network.inner.features._forward_hooks


@pytest.mark.parametrize("method", [name for name in METHODS if name != "CAM"])
def test_a_layer_outside_is_explained(method: str) -> None:
    network, x = Mapped(features=False).eval(), torch.rand(2, 3, 16, 16)
    found = METHODS[method](network, network.inner.features)(x, target=1)
    inner = network.inner
    torch.testing.assert_close(found, METHODS[method](inner, inner.features)(x, target=1))


def test_check_layer_says_so_too() -> None:
    network = Mapped(features=True).eval()
    with pytest.raises(ValueError, match=r"inside of a transform of torch\.func"):
        check_layer(network, TargetLayer(network.inner.features), torch.rand(2, 3, 16, 16))


def test_methods_without_a_layer_take_them() -> None:
    network, x = Mapped(features=True).eval(), torch.rand(2, 3, 16, 16)
    found = RISE(network).attribute(x, target=1, n_masks=5)
    torch.testing.assert_close(found, RISE(network.inner).attribute(x, target=1, n_masks=5))
