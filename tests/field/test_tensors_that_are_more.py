"""Inputs that are more, or other, than plain tensors in the order N x C x spatial."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import (
    RISE,
    AblationCAM,
    EigenCAM,
    GradCAM,
    GroupCAM,
    ScoreCAM,
    ShapleyCAM,
)
from captum_groupcam.metrics.functional import average_drop, deletion_insertion
from captum_groupcam.networks import check_layer, find_layer
from captum_groupcam.networks.target_layer import TargetLayer
from tests.toy_networks import classifier


class Tagged(Tensor):
    """Metadata that cannot follow a batch through indexing and joining."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in (torch.cat, torch.stack, Tensor.__getitem__, torch.lerp):
            raise TypeError("metadata cannot follow")
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("method", ["GroupCAM", "ScoreCAM", "GradCAM", "RISE"])
def test_a_subclass_is_the_plain_tensor(method: str) -> None:
    network = classifier()
    explainer = {
        "GroupCAM": GroupCAM(network, network.features),
        "ScoreCAM": ScoreCAM(network, network.features),
        "GradCAM": GradCAM(network, network.features),
        "RISE": RISE(network),
    }[method]
    options = {"n_masks": 7} if method == "RISE" else {}
    x = torch.rand(2, 3, 16, 16)
    maps = explainer.attribute(x.as_subclass(Tagged), target=1, **options)
    assert type(maps) is Tensor
    torch.testing.assert_close(maps, explainer.attribute(x, target=1, **options))


class Tagging(nn.Module):
    """Gives its input as a subclass, which all that follows keeps."""

    def forward(self, x: Tensor) -> Tensor:
        return x.as_subclass(Tagged)


METHODS = {
    "GroupCAM": (GroupCAM, {"n_groups": 4}),
    "without gradients": (GroupCAM, {"n_groups": 4, "gradient_free": True}),
    "ScoreCAM": (ScoreCAM, {}),
    "GradCAM": (GradCAM, {}),
    "EigenCAM": (EigenCAM, {}),
    "AblationCAM": (AblationCAM, {}),
    "ShapleyCAM": (ShapleyCAM, {}),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", ["before the layer", "after it", "at the end"])
def test_what_a_network_gives_as_a_subclass_is_the_plain_tensor(method: str, place: str) -> None:
    make, options = METHODS[method]
    network, x = classifier(), torch.rand(3, 3, 16, 16)
    parts = [network.features, network.head]
    index = ["before the layer", "after it", "at the end"].index(place)
    tagging = nn.Sequential(*parts[:index], Tagging(), *parts[index:]).eval()
    options = options | {"internal_batch_size": 2}
    maps = make(tagging, network.features).attribute(x, target=1, **options)
    assert type(maps) is Tensor
    expected = make(network, network.features).attribute(x, target=1, **options)
    torch.testing.assert_close(maps, expected)


def test_baselines_and_maps_that_are_a_subclass() -> None:
    network, x = classifier(), torch.rand(2, 3, 16, 16)
    explainer = ScoreCAM(network, network.features)
    dark = torch.rand(2, 3, 16, 16)
    tagged = dark.as_subclass(Tagged)
    expected = explainer.attribute(x, target=1, baselines=dark)
    for baselines in (tagged, lambda _: tagged, (tagged,)):
        found = explainer.attribute(x, target=1, baselines=baselines)
        torch.testing.assert_close(found, expected)
    maps = torch.rand(2, 1, 16, 16)
    for measure in (average_drop, deletion_insertion):
        found = measure(network, maps.as_subclass(Tagged), x.as_subclass(Tagged), 1)
        assert {type(one) for one in found} == {Tensor}
        torch.testing.assert_close(tuple(found), tuple(measure(network, maps, x, 1)))
    target = torch.tensor([1, 0]).as_subclass(Tagged)
    found = explainer.attribute(x, target=target, baselines=tagged)
    torch.testing.assert_close(found, explainer.attribute(x, target=[1, 0], baselines=dark))


def test_a_layer_is_found_and_checked_with_a_subclass() -> None:
    network, x = classifier(), torch.rand(2, 3, 16, 16).as_subclass(Tagged)
    assert find_layer(network, x).module is find_layer(network, x.as_subclass(Tensor)).module
    assert check_layer(network, TargetLayer(network.features), x).problems == ()


@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")
def test_a_masked_tensor_is_refused_with_what_to_do() -> None:
    network, x = classifier(), torch.rand(1, 3, 16, 16)
    masked = torch.masked.masked_tensor(x, x > 0.5)
    asked = r"is a masked tensor.*to_tensor\(0\.0\)"
    with pytest.raises(TypeError, match=asked):
        GradCAM(network, network.features).attribute(masked, 1)
    with pytest.raises(TypeError, match=asked):
        find_layer(network, masked)
    maps = GradCAM(network, network.features).attribute(masked.to_tensor(0.0), 1)
    expected = GradCAM(network, network.features).attribute(x * (x > 0.5), 1)
    torch.testing.assert_close(maps, expected)


def test_channels_that_come_last_are_named() -> None:
    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = classifier()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.permute(0, 3, 1, 2))

    network = ChannelsLast().eval()
    explainer = GroupCAM(network, network.inner.features)
    with pytest.raises(ValueError, match=r"\(2, 32, 48, 3\).*as if its channels came last"):
        explainer.attribute(torch.rand(2, 32, 48, 3), 1)


def test_statically_quantised_networks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in torch, but in use
        quantization = torch.ao.quantization
        layers = nn.Sequential(
            quantization.QuantStub(),
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
            quantization.DeQuantStub(),
        ).eval()
        layers.qconfig = quantization.get_default_qconfig("fbgemm")
        quantization.prepare(layers, inplace=True)
        layers(torch.rand(8, 3, 32, 32))
        quantization.convert(layers, inplace=True)
        x = torch.rand(2, 3, 32, 32)
        with pytest.raises(ValueError, match="gradient_free=True"):
            GroupCAM(layers, layers[2]).attribute(x, 1)
        maps = GroupCAM(layers, layers[2]).attribute(x, 1, gradient_free=True, n_groups=4)
        assert maps.shape == (2, 1, 32, 32)
        assert maps.any()
        assert str(find_layer(layers, x)) == "2"
        assert ScoreCAM(layers, layers[2]).attribute(x, 1, relu_attributions=False).any()
