"""Transformers, small and randomly initialised: geometry, invariants, and the loop of the paper."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import ConvNeXt, MaxVit, SwinTransformer
from torchvision.models.convnext import CNBlockConfig

from captum_groupcam import CAM, RISE, GradCAMPlusPlus, GroupCAM, ScoreCAM
from captum_groupcam.methods import METHODS
from captum_groupcam.networks.layers import find_layer
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.transformers import channels_first, token_grid, tokens_to_grid
from tests.attr.naive_group_cam import naive_group_cam
from tests.toy_networks import images, seeded, small_timm, small_timm_vit, small_vit

# --- the transforms


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 6), min_size=1, max_size=3), st.integers(0, 3), st.integers(1, 3))
def test_property_every_patch_lands_where_it_lies(grid, n_prefix, channels):
    n_patches = int(np.prod(grid))
    patches = torch.arange(2.0 * n_patches * channels).view(2, n_patches, channels)
    tokens = torch.cat([torch.full((2, n_prefix, channels), -1.0), patches], dim=1)
    maps = tokens_to_grid(tokens, grid, n_prefix=n_prefix)
    assert maps.shape == (2, channels, *grid)
    for place in np.ndindex(*grid):
        row = int(np.ravel_multi_index(place, grid))
        assert torch.equal(maps[(slice(None), slice(None), *place)], patches[:, row])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 32), st.integers(0, 12))
def test_property_the_grid_is_found_by_the_aspect_ratio(height, width, patch, n_prefix):
    grid, size = (height, width), (height * patch, width * patch)
    n_tokens = n_prefix + height * width
    if n_prefix < min(grid):
        assert token_grid(n_tokens, size) == grid
    assert token_grid(n_tokens, size, n_prefix=n_prefix) == grid


@pytest.mark.parametrize(
    ("tokens", "arguments", "message"),
    [
        ((2, 17), {"grid": (4, 4)}, r"shape N x T x C, got \(2, 17\)"),
        ((2, 17, 3), {}, "either the grid"),
        ((2, 17, 3), {"grid": (4, 4), "input_size": (32, 32)}, "either the grid"),
        ((2, 15, 3), {"grid": (4, 4)}, r"15 tokens are not few .* a grid of \(4, 4\)"),
        # An image of another size, not 21 prefix tokens.
        ((2, 37, 3), {"grid": (4, 4)}, r"37 tokens are not few"),
        ((2, 18, 3), {"grid": (4, 4), "n_prefix": 1}, r"18 tokens are not 1 prefix tokens"),
        ((2, 17, 3), {"input_size": (32, 48)}, r"17 tokens fit no grid .* \(32, 48\)"),
        ((2, 17, 3), {"input_size": (48,)}, r"several grids, \[\(12,\), \(16,\)\]"),
    ],
)
def test_what_does_not_fit_is_refused(tokens, arguments, message):
    with pytest.raises(ValueError, match=message):
        tokens_to_grid(torch.zeros(tokens), **arguments)


def test_channels_first_moves_the_channels():
    maps = torch.rand(2, 3, 4, 5)
    assert torch.equal(channels_first(maps)[1, 4], maps[1, :, :, 4])
    assert channels_first(torch.rand(2, 7, 5)).shape == (2, 5, 7)


# --- networks


SWIN = {"embed_dim": 12, "window_size": 4}

NETWORKS: dict[str, tuple[tuple[int, int], Callable[[], nn.Module]]] = {
    "torchvision ViT": ((32, 32), small_vit),
    "torchvision Swin": (
        (32, 48),
        partial(
            SwinTransformer,
            patch_size=[4, 4],
            embed_dim=12,
            depths=[1, 2],
            num_heads=[2, 2],
            window_size=[4, 4],
            num_classes=5,
        ),
    ),
    "torchvision ConvNeXt": (
        (32, 48),
        partial(ConvNeXt, [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=5),
    ),
    "torchvision MaxViT": (
        (32, 32),
        partial(
            MaxVit,
            input_size=(32, 32),
            stem_channels=8,
            partition_size=2,
            block_channels=[8, 16],
            block_layers=[1, 1],
            head_dim=8,
            stochastic_depth_prob=0.0,
            num_classes=5,
        ),
    ),
    "timm ViT": ((32, 48), small_timm_vit),
    "timm ViT with registers": ((32, 48), partial(small_timm_vit, reg_tokens=1)),
    "timm ViT, averaged": ((32, 48), partial(small_timm_vit, global_pool="avg")),
    "timm ViT, attention pooling": (
        (32, 48),
        partial(small_timm_vit, global_pool="map", class_token=False),
    ),
    "timm DeiT, distilled": (
        (48, 48),
        partial(
            small_timm,
            "deit_tiny_distilled_patch16_224",
            img_size=48,
            embed_dim=24,
            depth=2,
            num_heads=2,
        ),
    ),
    "timm Swin": (
        (32, 48),
        partial(
            small_timm,
            "swin_tiny_patch4_window7_224",
            img_size=(32, 48),
            depths=(1, 2),
            num_heads=(2, 2),
            **SWIN,
        ),
    ),
    "timm ConvNeXt": (
        (64, 96),
        partial(small_timm, "convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 12, 12)),
    ),
    "timm MaxViT": (
        (64, 64),
        partial(
            small_timm,
            "maxvit_rmlp_pico_rw_256",
            img_size=64,
            embed_dim=(32, 32, 32, 32),
            depths=(1, 1, 1, 1),
            stem_width=8,
        ),
    ),
}

every_network = pytest.mark.parametrize("name", NETWORKS)


def network(name: str) -> tuple[nn.Module, TargetLayer, Tensor]:
    """A network in which what the tokens say moves the output, its layer, and inputs."""
    size, build = NETWORKS[name]

    def make() -> nn.Module:
        net = build()
        for module in net.modules():
            if isinstance(module, nn.Linear):  # small or zero as they come
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        return net.double().eval()  # rounding must not make a flat channel look like a mask

    net = seeded(make, 1)
    x = images(2, *size).double()
    return net, find_layer(net, x[:1]), x


class ToGrid(nn.Module):
    """Tokens or channels-last maps to N x C x h x w, position by position."""

    def __init__(self, grid: tuple[int, int] | None):
        super().__init__()
        self.grid = grid

    def forward(self, values: Tensor) -> Tensor:
        if self.grid is None:
            return values.permute(0, 3, 1, 2)
        height, width = self.grid
        self.prefix = values[:, : values.shape[1] - height * width]
        patches = values[:, self.prefix.shape[1] :]
        rows = [patches[:, row * width : (row + 1) * width] for row in range(height)]
        return torch.stack(rows, dim=1).permute(0, 3, 1, 2)


class FromGrid(nn.Module):
    """The way back, with the prefix tokens that were left aside."""

    def __init__(self, to_grid: ToGrid):
        super().__init__()
        self.kept = [to_grid]

    def forward(self, maps: Tensor) -> Tensor:
        values = maps.permute(0, 2, 3, 1)
        if self.kept[0].grid is None:
            return values
        return torch.cat([self.kept[0].prefix, values.flatten(1, 2)], dim=1)


def gridded(net: nn.Module, layer: TargetLayer) -> tuple[nn.Module, nn.Module]:
    """The same network with a layer in it that gives N x C x h x w."""
    net = copy.deepcopy(net)
    parent, _, child = layer.name.rpartition(".")
    module = net.get_submodule(layer.name)
    if layer.reshape_transform is None:
        return net, module
    keywords = getattr(layer.reshape_transform, "keywords", {"grid": None})
    to_grid = ToGrid(keywords["grid"])
    parts = [to_grid, FromGrid(to_grid)]
    whole = [*parts, module] if layer.attribute_to_layer_input else [module, *parts]
    setattr(net.get_submodule(parent), child, nn.Sequential(*whole))
    return net, to_grid


class Split:
    """A network cut at a layer, as the naive loop takes it."""

    def __init__(self, net: nn.Module, layer: nn.Module):
        self.net, self.layer = net, layer

    def __call__(self, x: Tensor) -> Tensor:
        return self.net(x)

    def features(self, x: Tensor) -> Tensor:
        self.x = x
        found = []
        handle = self.layer.register_forward_hook(lambda _m, _a, output: found.append(output))
        self.net(x)
        handle.remove()
        return found[-1]

    def head(self, maps: Tensor) -> Tensor:
        handle = self.layer.register_forward_hook(lambda _m, _a, _o: maps)
        output = self.net(self.x)
        handle.remove()
        return output


METHODS_ON_LAYER: dict[str, tuple[type, dict[str, Any]]] = {
    "GroupCAM": (GroupCAM, {"n_groups": 3, "relu_attributions": False}),
    "ScoreCAM": (ScoreCAM, {"relu_attributions": False}),
    "GradCAMPlusPlus": (GradCAMPlusPlus, {"relu_attributions": False}),
}

every_method = pytest.mark.parametrize("method", METHODS_ON_LAYER)


def explain(method: str, net: nn.Module, layer: TargetLayer, x: Tensor, target: Any, **more: Any):
    cls, options = METHODS_ON_LAYER[method]
    return cls(net, layer.module).attribute(
        x,
        target,
        attribute_to_layer_input=layer.attribute_to_layer_input,
        reshape_transform=layer.reshape_transform,
        **{**options, **more},
    )


# --- what holds for all of them


@pytest.mark.filterwarnings("ignore:The maps of samples")
@every_network
def test_group_cam_equals_the_equations(name):
    net, layer, x = network(name)
    maps, scores = explain(
        "GroupCAM", net, layer, x, [1, 3], baselines=0.0, return_group_scores=True
    )
    assert maps.shape == (2, 1, *x.shape[2:])
    grid, grid_layer = gridded(net, layer)
    for n, target in enumerate([1, 3]):
        expected, alphas = naive_group_cam(
            Split(grid, grid_layer), x[n], torch.zeros_like(x[n]), target, 3
        )
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(maps[n].numpy(), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(scores[n].numpy(), alphas, rtol=0, atol=1e-5)


@every_network
@every_method
def test_equals_the_same_network_with_a_grid_in_it(name, method):
    net, layer, x = network(name)
    maps = explain(method, net, layer, x, [1, 3])
    grid, grid_layer = gridded(net, layer)
    at_input = layer.attribute_to_layer_input and layer.reshape_transform is None
    expected = explain(method, grid, TargetLayer(grid_layer, "", at_input), x, [1, 3])
    assert expected.abs().max() > 0
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


@every_network
@every_method
def test_batch_is_its_samples_and_chunks_change_nothing(name, method):
    net, layer, x = network(name)
    whole = explain(method, net, layer, x, [1, 3])
    close = partial(
        torch.testing.assert_close, rtol=1e-3, atol=1e-5 * float(whole.abs().max()) + 1e-6
    )
    close(explain(method, net, layer, x, [1, 3], internal_batch_size=7), whole)
    for n, target in enumerate([1, 3]):
        close(explain(method, net, layer, x[n : n + 1], target), whole[n : n + 1])


@every_network
def test_grad_cam_is_captums_and_one_group_without_denoising_its_multiple(name):
    net, layer, x = network(name)
    grid, grid_layer = gridded(net, layer)
    captums, targets = positive_grad_cam(grid, grid_layer, x)
    grad_cam = METHODS["grad_cam"](net, layer)(x, targets)
    expected = LayerAttribution.interpolate(captums, x.shape[2:], "bilinear").detach()
    scale = float(expected.abs().max())
    torch.testing.assert_close(grad_cam, expected, rtol=1e-4, atol=1e-5 * scale)

    one = {"n_groups": 1, "denoise_percentile": None, "return_group_scores": True}
    maps, scores = explain("GroupCAM", net, layer, x, targets, **one)
    low, high = (reduce(expected, (1, 2, 3), keepdim=True) for reduce in (torch.amin, torch.amax))
    normalized = (expected - low) / (high - low)
    torch.testing.assert_close(maps, scores.view(2, 1, 1, 1) * normalized, rtol=1e-3, atol=1e-5)


def positive_grad_cam(net: nn.Module, layer: nn.Module, x: Tensor) -> tuple[Tensor, list[int]]:
    """Captum's Grad-CAM of the classes that it finds most of; others may be negative all over."""
    grad_cam = LayerGradCam(net, layer)
    maps = [grad_cam.attribute(x, c, relu_attributions=True).detach() for c in range(5)]
    targets = torch.stack([each.flatten(1).amax(1) for each in maps]).argmax(0).tolist()
    chosen = torch.stack([maps[target][n] for n, target in enumerate(targets)])
    assert chosen.flatten(1).amax(1).min() > 0
    return chosen, targets


def test_averaged_tokens_are_explained_by_cam():
    net = seeded(
        partial(small_timm_vit, global_pool="avg", class_token=False, fc_norm=False)
    ).eval()
    layer, x = find_layer(net, images(1, 32, 48)), images(2, 32, 48)
    maps = CAM(net, layer.module).attribute(x, 3, reshape_transform=layer.reshape_transform)
    assert maps.shape == (2, 1, 4, 6)
    # The mean of the map and the bias are the logit (eq. 3 of the paper).
    with torch.no_grad():
        torch.testing.assert_close(maps.mean((1, 2, 3)) + net.head.bias[3], net(x)[:, 3])
    other = small_timm_vit().eval()
    layer = find_layer(other, x)
    with pytest.raises(ValueError, match="they are not the mean of the layer over its positions"):
        CAM(other, layer.module).attribute(x, 3, reshape_transform=layer.reshape_transform)


@pytest.mark.parametrize(
    "method",
    [
        "group_cam",
        "group_cam_gradient_free",
        "group_cam_consensus",
        "grad_cam_plus_plus",
        "score_cam",
        "rise",
    ],
)
def test_methods_by_name(method):
    net, layer, x = network("timm ViT")
    options = {"rise": {"n_masks": 10}}.get(method, {})
    maps = METHODS[method](net, layer, **options)(x, [1, 3])
    assert maps.shape == (2, 1, 32, 48)
    assert maps.flatten(1).std(1).min() > 0


@pytest.mark.parametrize("method", ["integrated_gradients", "input_x_gradient", "occlusion"])
def test_methods_without_a_layer_take_no_notice(method):
    net, layer, x = network("timm Swin")
    plain = METHODS[method](net)(x, 1)
    given_one = METHODS[method](net, layer)
    torch.testing.assert_close(given_one(x, 1), plain)


def test_rise_needs_no_layer():
    net, _, x = network("timm Swin")
    assert RISE(net).attribute(x, target=1, n_masks=10).shape == (2, 1, 32, 48)


def test_tokens_without_a_transform_are_refused():
    net, layer, x = network("timm ViT")
    with pytest.raises(ValueError, match="give a reshape_transform"):
        GroupCAM(net, layer.module).attribute(x, 1)
    with pytest.raises(ValueError, match="25 tokens are not 1 prefix tokens"):
        GroupCAM(net, layer.module).attribute(
            x, 1, reshape_transform=partial(tokens_to_grid, grid=(2, 2), n_prefix=1)
        )


def test_the_map_points_at_the_patch_that_decides():
    """Class 0 is made of how red the patches are, one patch is red, the grid is not square."""

    class Red(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 4, 8, stride=8)
            self.norm = nn.LayerNorm(4)
            self.head = nn.Linear(4, 2)
            with torch.no_grad():
                self.embed.weight.zero_()
                self.embed.bias.copy_(torch.tensor([0.0, 0.1, 0.2, 0.3]))
                self.embed.weight[0, 0] = 1 / 64
                self.head.weight.copy_(torch.tensor([[9.0, 0, 0, 0], [0, 0, 0, 0]]))

        def forward(self, x):
            return self.head(self.norm(self.embed(x).flatten(2).transpose(1, 2)).mean(1))

    net = Red().eval()
    x = torch.zeros(1, 3, 32, 48)
    x[0, 0, 16:24, 40:48] = 5
    layer = find_layer(net, x)
    assert layer.name == "norm"
    for method in ("GroupCAM", "ScoreCAM"):
        maps = explain(method, net, layer, x, 0, relu_attributions=True, baselines=0.0)
        rows, columns = maps.shape[2] // 4, maps.shape[3] // 6
        row, column = divmod(int(maps.flatten().argmax()), maps.shape[3])
        assert (row // rows, column // columns) == (2, 5), method
