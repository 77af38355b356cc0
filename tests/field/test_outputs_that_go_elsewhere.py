"""The output of a layer that reaches the network by another way than what the layer returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from captum_groupcam import AblationCAM, GradCAM, GroupCAM, HiResCAM, LayerCAM, ShapleyCAM
from captum_groupcam.attr.several_layers import SeveralLayers
from captum_groupcam.models import load_model
from captum_groupcam.networks import find_layer
from captum_groupcam.networks.layers import find_reshape_transform
from captum_groupcam.networks.target_layer import TargetLayer
from tests.toy_networks import hooks, images


class Base(nn.Module):
    def __init__(self, *, in_place: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layer = nn.ReLU(inplace=in_place)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)


class Shortcut(Base):
    """The variable before the layer is read after it: of one in place it is the output."""

    def forward(self, x):
        h = self.stem(x)
        y = self.layer(h)
        return self.head((self.conv(y).tanh() + h).mean((2, 3)))


class Ignored(Base):
    """Nobody takes what the layer returns."""

    def forward(self, x):
        h = self.stem(x)
        self.layer(h)
        return self.head(self.conv(h).tanh().mean((2, 3)))


class Kept(Base):
    """Another hook keeps the output, as feature extractors do."""

    def __init__(self) -> None:
        super().__init__(in_place=False)
        self.kept: list[Tensor] = []
        self.layer.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _args: Any, output: Tensor) -> None:
        self.kept.append(output)

    def forward(self, x):
        self.conv(self.layer(self.stem(x)))
        return self.head(self.conv(self.kept.pop()).tanh().mean((2, 3)))


class ChangedAfter(Base):
    """The output changes in place after it has been read."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x):
        y = self.layer(self.stem(x))
        read = 2 * y
        return self.head((self.conv(read).tanh() + y.add_(1) ** 2).mean((2, 3)))


class OwnModes(Base):
    """Gradients are switched on and off by the network itself."""

    def forward(self, x):
        with torch.enable_grad():
            h = self.layer(self.stem(x))
        gate = h.mean((2, 3), keepdim=True).sigmoid()
        with torch.enable_grad():
            return self.head((self.conv(h) * gate).tanh().mean((2, 3)))


NETWORKS: list[Callable[[], Base]] = [Shortcut, Ignored, Kept, ChangedAfter, OwnModes]


@pytest.fixture(params=NETWORKS, ids=lambda make: make.__name__)
def network(request: pytest.FixtureRequest) -> Base:
    torch.manual_seed(0)
    return request.param().eval()


@pytest.mark.parametrize("frozen", [False, True])
def test_grad_cam_is_captums(network: Base, frozen: bool) -> None:
    network.requires_grad_(not frozen)
    inputs = images(3)
    expected = LayerGradCam(network, network.layer).attribute(inputs, 1)
    assert expected.any()
    before = hooks(network)
    found = GradCAM(network, network.layer).attribute(inputs, 1)
    torch.testing.assert_close(found, expected.detach())
    assert hooks(network) == before
    assert not found.requires_grad


def output_and_rest(network: Base, inputs: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The layer's output, and what the network makes of another one: the layer's input is it."""
    output = network.layer(network.stem(inputs)).detach()

    class Given(nn.Module):
        def forward(self, _x: Tensor) -> Tensor:
            return self.output.clone()

    def rest(other: Tensor) -> Tensor:
        given, stem = Given(), network.stem
        given.output = other
        network.stem = given  # what the layer gave once, it gives again
        try:
            return network(inputs)[:, 1]
        finally:
            network.stem = stem

    return output, rest


def test_gradients_are_those_of_the_output(network: Base) -> None:
    inputs = images(2)
    output, rest = output_and_rest(network, inputs)
    output.requires_grad_()
    (gradients,) = torch.autograd.grad(rest(output).sum(), output)
    # ReLU passes no gradient where it gives zero, which adds nothing here.
    expected = (gradients * output).sum(1, keepdim=True).detach()
    found = HiResCAM(network, network.layer).attribute(inputs, 1)
    torch.testing.assert_close(found, expected)


def test_ablation_takes_a_channel_from_all_that_have_it(network: Base) -> None:
    inputs = images(2)
    output, rest = output_and_rest(network, inputs)
    with torch.no_grad():
        whole, weights = rest(output), []
        for channel in range(output.shape[1]):
            without = output.clone()
            without[:, channel] = 0
            weights.append(whole - rest(without))
    weighted = torch.stack(weights, 1)[..., None, None] * output
    found = AblationCAM(network, network.layer).attribute(inputs, 1, relu_attributions=False)
    torch.testing.assert_close(found, weighted.sum(1, keepdim=True), atol=1e-5, rtol=1e-4)


def test_the_network_gives_what_it_gives_without_a_map(network: Base) -> None:
    inputs = images(2)
    seen: list[Tensor] = []

    class Noted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            output = self.network(x)
            seen.append(output.detach())
            return output

    noted = Noted().eval()
    for at_input in (False, True):
        seen.clear()
        GradCAM(noted, network.layer).attribute(inputs, 1, attribute_to_layer_input=at_input)
        torch.testing.assert_close(seen[0], network(inputs).detach(), rtol=0, atol=0)


@pytest.mark.parametrize("method", [LayerCAM, ShapleyCAM, GroupCAM])
def test_a_layer_in_place_is_explained_as_one_that_is_not(method: Any) -> None:
    torch.manual_seed(0)
    network = Shortcut().eval()

    class Plain(Shortcut):
        def forward(self, x):
            y = self.layer(self.stem(x))
            return self.head((self.conv(y).tanh() + y).mean((2, 3)))

    plain = Plain(in_place=False).eval()
    plain.load_state_dict(network.state_dict())
    inputs = images(2)
    expected = method(plain, plain.layer).attribute(inputs, 1)
    torch.testing.assert_close(method(network, network.layer).attribute(inputs, 1), expected)


def test_what_changes_in_place_between_is_an_error() -> None:
    class Spoiled(Base):
        def forward(self, x):
            h = self.layer(self.stem(x))
            squared = h.square()
            h.data.add_(1), h.add_(1)
            return self.head(squared.mean((2, 3)))

    torch.manual_seed(0)
    network = Spoiled(in_place=False).eval()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        GradCAM(network, network.layer).attribute(images(1), 1)


def test_a_buffer_that_a_layer_gives_stays_as_it_is() -> None:
    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("values", torch.rand(1, 6, 4, 4))

        def forward(self, _x: Tensor) -> Tensor:
            return self.values

    network = nn.Sequential(Given(), nn.Flatten(), nn.Linear(96, 4)).eval()
    before = network[0].values.clone()
    GradCAM(network, network[0]).attribute(images(1), 1)
    assert torch.equal(network[0].values, before)
    assert network[0].values.is_leaf
    assert not network[0].values.requires_grad


def test_named_layers_have_grids_of_their_own() -> None:
    model = load_model("swin_t", weights="random")
    inputs = images(1, 64, 64)
    names = ("features.3", "features.5")
    places = []
    for name in names:
        module = model.network.get_submodule(name)
        transform = find_reshape_transform(model.network, module, inputs)
        places.append(TargetLayer.of(model.network, name, reshape_transform=transform))
    expected = SeveralLayers(LayerCAM, model.network, places).attribute(inputs, 1)
    found = model.explain("layer_cam", inputs, 1, layers=names)
    both = torch.stack([found.flatten(), expected.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.98  # merged at another resolution


def test_a_layer_is_found_where_its_output_is_ignored() -> None:
    torch.manual_seed(0)
    network = Ignored().eval()
    inputs = images(1)
    layer = find_layer(network, inputs)
    maps = GradCAM(network, layer.module).attribute(inputs, 1, **layer.keywords)
    assert maps.any()
