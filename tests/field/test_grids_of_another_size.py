"""A grid that was found, or given, for an input of one size, and an input of another."""

from __future__ import annotations

import copy
import pickle
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam import GradCAM, GroupCAM, ScoreCAM
from captum_groupcam.attr.several_layers import SeveralLayers
from captum_groupcam.methods import METHODS
from captum_groupcam.networks import TargetLayer, check_layer, find_layer, find_reshape_transform
from captum_groupcam.networks.transformers import tokens_to_grid

METHODS_OF_A_LAYER = [GradCAM, GroupCAM, ScoreCAM]
pytestmark = pytest.mark.filterwarnings("ignore:The maps of samples")


class Patches(nn.Module):
    """Tokens of patches, of an input of any size or resized to one, a block, and their mean."""

    def __init__(self, patch=(16, 16), n_class: int = 0, resized=None) -> None:
        super().__init__()
        self.embed, self.resized = nn.Conv2d(3, 16, patch, patch), resized
        self.others = nn.Parameter(torch.randn(1, n_class, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.resized is None else F.interpolate(x, self.resized)
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.block(self.with_others(tokens)))[:, self.n_class :].mean(1))

    def with_others(self, tokens: Tensor) -> Tensor:
        return torch.cat([self.others.expand(len(tokens), -1, -1), tokens], 1)

    @property
    def n_class(self) -> int:
        return self.others.shape[1]


def by_hand(net: Patches, x: Tensor, target: int) -> Tensor:
    """Grad-CAM at the norm, one position after the other."""
    rows, columns = (
        side // patch for side, patch in zip(x.shape[2:], net.embed.kernel_size, strict=True)
    )
    tokens = net.with_others(net.embed(x).flatten(2).transpose(1, 2))
    features = net.norm(net.block(tokens)).detach().requires_grad_()
    net.head(features[:, net.n_class :].mean(1))[:, target].sum().backward()
    weights = features.grad[:, net.n_class :].mean(1)
    maps = torch.zeros(len(x), 1, rows, columns)
    for row in range(rows):
        for column in range(columns):
            token = features[:, net.n_class + row * columns + column]
            maps[:, 0, row, column] = (token * weights).sum(1)
    return maps.detach()


@pytest.fixture(params=[0, 1], ids=["no class token", "class token"])
def net(request) -> Patches:
    torch.manual_seed(0)
    return Patches(n_class=request.param).eval()


@pytest.mark.parametrize("size", [(96, 128), (160, 96), (192, 256), (100, 150)])
def test_a_found_grid_follows_the_size(size, net: Patches) -> None:
    layer = find_layer(net, torch.rand(1, 3, 96, 128))
    assert layer.name == "norm"
    x = torch.rand(2, 3, *size)
    maps = GradCAM(net, layer.module).attribute(x, 1, **layer.keywords)
    torch.testing.assert_close(maps, by_hand(net, x, 1))
    layer_sum = METHODS["layer_gradient_x_activation"](net, layer)(x, 1)
    again = METHODS["layer_gradient_x_activation"](net, find_layer(net, x))(x, 1)
    torch.testing.assert_close(layer_sum, again)


@pytest.mark.parametrize("method", METHODS_OF_A_LAYER)
@pytest.mark.parametrize("size", [(128, 96), (64, 192), (192, 64)])
def test_as_many_patches_of_another_size_are_refused(size, method, net: Patches) -> None:
    layer, x = find_layer(net, torch.rand(1, 3, 96, 128)), torch.rand(1, 3, *size)
    with pytest.raises(ValueError, match=r"found for an input of 96 x 128, with a grid of 6 x 8"):
        method(net, layer.module).attribute(x, 1, **layer.keywords)
    with pytest.raises(ValueError, match="Find it for inputs of this size"):
        SeveralLayers(method, net, [layer]).attribute(x, 1)
    with pytest.raises(ValueError, match=r"the 48 patches may lie on a grid of 6 x 8 or"):
        METHODS["layer_gradient_x_activation"](net, layer)(x, 1)
    with pytest.raises(ValueError, match="Find it for inputs of this size"):
        check_layer(net, layer, x)
    # What the message says to do gives the right map.
    found = find_reshape_transform(net, layer.module, x)
    maps = GradCAM(net, layer.module).attribute(x, 1, reshape_transform=found)
    torch.testing.assert_close(maps, by_hand(net, x, 1))


def test_an_image_that_the_network_resizes_is_refused() -> None:
    net = Patches(resized=(96, 128)).eval()
    layer = find_layer(net, torch.rand(1, 3, 96, 128))
    with pytest.raises(ValueError, match=r"48 patches may lie on a grid of 6 x 8\. Find"):
        GradCAM(net, layer.module).attribute(torch.rand(1, 3, 192, 256), 1, **layer.keywords)


def test_a_found_transform_is_copied_and_pickled() -> None:
    net = Patches().eval()
    transform = find_layer(net, torch.rand(1, 3, 96, 128)).reshape_transform
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert other.keywords == transform.keywords
        assert other.at((160, 96))(torch.zeros(1, 60, 16)).shape == (1, 16, 10, 6)


@pytest.mark.parametrize("method", METHODS_OF_A_LAYER)
@pytest.mark.parametrize(
    ("size", "grid"), [((128, 96), (6, 8)), ((96, 128), (8, 6)), ((96, 128), (4, 12))]
)
def test_a_grid_given_by_hand_that_is_not_the_inputs_is_refused(size, grid, method, net) -> None:
    given = partial(tokens_to_grid, grid=grid)
    rows, columns = size[0] // 16, size[1] // 16
    message = f"follow the input as one of {rows} x {columns} does"
    for transform in (given, lambda tokens: given(tokens)):
        with pytest.raises(ValueError, match=message):
            method(net, net.norm).attribute(torch.rand(2, 3, *size), 1, reshape_transform=transform)
    with pytest.raises(ValueError, match=message):
        METHODS["internal_influence"](net, TargetLayer(net.norm, reshape_transform=given))(
            torch.rand(1, 3, *size), 1
        )


@pytest.mark.parametrize("patch", [(96, 4), (32, 4), (8, 32)])
def test_patches_that_are_no_squares_are_taken_as_given(patch) -> None:
    torch.manual_seed(1)
    net, x = Patches(patch).eval(), torch.rand(1, 3, 96, 128)
    grid = 96 // patch[0], 128 // patch[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = GradCAM(net, net.norm).attribute(
            x, 1, reshape_transform=partial(tokens_to_grid, grid=grid)
        )
    torch.testing.assert_close(maps, by_hand(net, x, 1))


class Turned(nn.Module):
    """Looks at the image turned."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x.mT).mean((2, 3)))


def test_a_network_that_turns_its_input_is_refused() -> None:
    net, x = Turned().eval(), torch.rand(1, 3, 32, 48)
    with pytest.raises(ValueError, match="its rows follow the columns of the input"):
        GradCAM(net, net.features).attribute(x, 1)
    back = GradCAM(net, net.features).attribute(x, 1, reshape_transform=lambda maps: maps.mT)
    straight = nn.Sequential(net.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.head)
    turned = GradCAM(straight, net.features).attribute(x.mT, 1).mT
    torch.testing.assert_close(back, turned)


def test_strides_that_turn_the_aspect_are_no_alarm() -> None:
    features = nn.Sequential(nn.Conv2d(3, 8, 3, (4, 16), 1), nn.ReLU())
    net = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    assert GradCAM(net, features).attribute(torch.rand(1, 3, 64, 128), 1).shape == (1, 1, 16, 8)
