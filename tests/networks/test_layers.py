"""Which layer is found in convolutional networks and transformers, and where none is."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torchvision
from torch import Tensor, nn

from captum_groupcam import GroupCAM
from captum_groupcam.networks.layers import find_layer, find_reshape_transform
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.transformers import channels_first, tokens_to_grid
from tests.toy_networks import (
    CONVOLUTIONS,
    POOLS,
    head,
    image,
    small_timm,
    small_timm_vit,
    small_vit,
)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_finds_the_last_layer_with_positions(dims: int) -> None:
    net = nn.Sequential(
        CONVOLUTIONS[dims](2, 4, 3),
        nn.ReLU(),
        CONVOLUTIONS[dims](4, 6, 3),
        nn.Tanh(),
        POOLS[dims](1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    assert find_layer(net, torch.rand(2, 2, *[9] * dims)) == TargetLayer(net[3], "3")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", "layer4"),
        ("squeezenet1_1", "features"),
        ("mobilenet_v3_small", "features"),
        ("efficientnet_b0", "features"),
        ("densenet121", "features"),
        ("regnet_y_400mf", "trunk_output"),
        ("shufflenet_v2_x0_5", "conv5"),
        ("convnext_tiny", "features"),
        ("swin_t", "permute"),
    ],
)
@pytest.mark.filterwarnings("ignore:The maps of samples .* no mask moved")  # untrained ones
def test_networks_of_torchvision(name: str, expected: str) -> None:
    net = torchvision.models.get_model(name, weights=None).eval()
    inputs = image(128)
    layer = find_layer(net, inputs)
    assert (layer.name, layer.attribute_to_layer_input) == (expected, False)
    maps = GroupCAM(net, layer.module).attribute(
        inputs, 1, n_groups=2, relu_attributions=False, denoise_percentile=None
    )
    assert maps.shape == (1, 1, 128, 128)


def test_a_shared_relu_stands_for_the_input_of_the_pooling() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.relu = nn.ReLU()
            self.pool, self.flat, self.fc = head()

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.second(self.relu(self.first(x))))
            return self.fc(self.flat(self.pool(x)))

    net = Shared()
    layer = find_layer(net, image())
    assert layer == TargetLayer(net.pool, "pool", attribute_to_layer_input=True)


def test_lite0s_table_entry_is_what_the_search_finds(lite0) -> None:
    layer = find_layer(lite0.network, image(128))
    assert layer == lite0.layer


def test_what_is_computed_between_modules_counts() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.pool, self.flat, self.fc = head()

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.flat(self.pool(torch.relu(self.conv(x)))))

    assert str(find_layer(Functional(), image())) == "input of pool"


def test_an_in_place_relu_is_another_layer_than_its_convolution() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), *head())
    assert find_layer(net, image()).name == "1"


def test_modules_that_pass_on_their_input_are_not_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Identity(), *head())
    assert find_layer(net, image()).name == "0"


def test_of_nested_blocks_with_one_output_it_is_the_outermost() -> None:
    block = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU())))
    assert find_layer(nn.Sequential(block, *head()), image()).name == "0"


def test_the_whole_network_is_never_it() -> None:
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Conv2d(4, 5, 3))
    # Its output is N x 5 x H x W, and so is its last layer's: class maps.
    assert find_layer(net, image()).name == "0"


def test_class_maps_are_passed_over_but_not_features_with_as_many_channels() -> None:
    maps = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 5, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    assert find_layer(maps, image()).name == "1"
    nothing_else = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert find_layer(nothing_else, image()).name == "0"
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *head(4, classes=4))
    assert find_layer(features, image()).name == "1"


def test_single_positions_do_not_count() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten()
    )
    assert find_layer(net, image()).name == "0"


def test_the_first_image_among_several_inputs_counts() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3)

        def forward(self, number: Tensor, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3)) + number

    assert find_layer(Two(), (torch.rand(1, 5), image())).name == "conv"


def test_inference_tensors_and_compiled_networks() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), *head())
    vit = small_vit()
    with torch.inference_mode():
        assert find_layer(net, image()).name == "1"
        assert find_layer(vit, image(32)).name.endswith("ln_1")
    assert find_layer(torch.compile(net, backend="eager"), image()).module is net[1]


square_vit = partial(small_timm_vit, img_size=32)


class Tokens1d(nn.Module):
    """A signal's patches as tokens: N x T x C looks like N x K x L."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(3, 12, 4, stride=4)
        self.encoder = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x).transpose(1, 2)).mean(1))


@pytest.mark.parametrize(
    ("build", "size", "expected"),
    [
        # The class token is the output: the last norm before it stops looking at the others.
        (small_vit, (32, 32), ("encoder.layers.encoder_layer_1.ln_1", False, (4, 4), 1)),
        (
            lambda: nn.Sequential(nn.BatchNorm2d(3), small_vit()),
            (32, 32),
            ("1.encoder.layers.encoder_layer_1.ln_1", False, (4, 4), 1),
        ),
        (square_vit, (32, 32), ("blocks.1.norm1", False, (4, 4), 1)),
        (partial(square_vit, img_size=(24, 40)), (24, 40), ("blocks.1.norm1", False, (3, 5), 1)),
        (
            partial(square_vit, dynamic_img_size=True),
            (40, 24),
            ("blocks.1.norm1", False, (5, 3), 1),
        ),
        (
            partial(square_vit, reg_tokens=2, qk_norm=True),
            (32, 32),
            ("blocks.1.norm1", False, (4, 4), 3),
        ),
        # Its tokens are averaged: the last there are.
        (partial(square_vit, global_pool="avg"), (32, 32), ("blocks", False, (4, 4), 1)),
        (
            partial(square_vit, global_pool="avg", class_token=False, fc_norm=False),
            (32, 32),
            ("norm", False, (4, 4), 0),
        ),
        # An attention pools them, whose keys in their heads, 16 x 16, look like a map.
        (
            partial(square_vit, global_pool="map", class_token=False, embed_dim=32),
            (32, 32),
            ("attn_pool", True, (4, 4), 0),
        ),
        (
            partial(small_timm, "deit_tiny_distilled_patch16_224", depth=1, img_size=64),
            (64, 64),
            ("blocks.0.norm1", False, (4, 4), 2),
        ),
        (Tokens1d, (64,), ("encoder", False, (16,), 0)),
    ],
    ids=[
        "torchvision",
        "behind batch norm",
        "timm",
        "not square",
        "size of the input",
        "registers",
        "averaged, norm after",
        "averaged",
        "attention pooling",
        "distilled",
        "1-D",
    ],
)
def test_transformers_are_explained_where_all_tokens_reach_the_output(build, size, expected):
    layer = find_layer(build(), torch.rand(1, 3, *size))
    transform = layer.reshape_transform
    assert transform.func is tokens_to_grid
    assert transform.keywords == {"grid": expected[2], "n_prefix": expected[3]}
    assert (layer.name, layer.attribute_to_layer_input) == expected[:2]


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_channels_last_transformers(name: str) -> None:
    options = {"depths": (1, 2), "embed_dim": 8, "num_heads": (2, 2), "window_size": 4}
    net = small_timm(name, img_size=(32, 64), **options)
    layer = find_layer(net, torch.rand(1, 3, 32, 64))
    assert layer == TargetLayer(net.norm, "norm", reshape_transform=channels_first)


def test_a_head_of_zeros_hides_no_layer() -> None:
    net = small_vit()
    assert not net.heads.head.weight.any()  # torchvision's initialisation
    assert find_layer(net, image(32)).name.endswith("ln_1")


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (
            lambda: nn.Sequential(small_vit(), Detached()),  # its head is zero
            r"Looked at, the last first:\n.*the output does not change with each of its positions",
        ),
        (
            lambda: nn.Sequential(Odd(), nn.LayerNorm(6), nn.Flatten(), nn.LazyLinear(5)),
            r"1, 1 x 11 x 6: no grid of patches has as many",
        ),
    ],
    ids=["no gradients", "no grid"],
)
def test_transformers_whose_layer_cannot_be_told_are_refused(build, reason) -> None:
    net = build()
    net(image(32))
    with pytest.raises(ValueError, match=reason):
        find_layer(net, image(32))


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class Odd(nn.Module):
    """Tokens that no grid has: 11 of them."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2)[..., :22].reshape(len(x), 11, 6)


def test_transform_of_a_chosen_layer() -> None:
    net = small_vit()
    inputs = image(32)
    for name, at_input in [("encoder.layers.encoder_layer_0", False), ("encoder.dropout", True)]:
        transform = find_reshape_transform(
            net, net.get_submodule(name), inputs, attribute_to_layer_input=at_input
        )
        assert transform.keywords == {"grid": (4, 4), "n_prefix": 1}
    assert find_reshape_transform(net, net.conv_proj, inputs) is None
    assert find_reshape_transform(net, net.heads, inputs) is None
    swin, layer = chosen_swin(32)
    assert find_reshape_transform(swin, swin.layers[0], inputs) is channels_first
    assert find_reshape_transform(swin, layer, inputs) is None
    # As many channels as positions along each axis: what the positions depend on tells.
    swin, layer = chosen_swin(48)
    assert find_reshape_transform(swin, layer, image(48)) is None
    assert find_reshape_transform(swin, swin.layers[0], image(48)) is channels_first


def chosen_swin(size: int) -> tuple[nn.Module, nn.Module]:
    """A Swin transformer and its layer before the channels go last."""
    options = {"depths": (1, 1), "embed_dim": 12, "num_heads": (2, 2)}
    net = small_timm("swin_tiny_patch4_window7_224", img_size=size, **options)
    return net, net.patch_embed.proj


class Normalized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5) / 0.5


@pytest.mark.parametrize("first", [[], [Normalized()], [nn.AvgPool2d(2), nn.Upsample(size=4)]])
def test_a_network_without_positions_is_refused(first: list[nn.Module]) -> None:
    net = nn.Sequential(*first, nn.Flatten(), nn.LazyLinear(5), nn.ReLU(), nn.Linear(5, 2))
    net(image(4))
    with pytest.raises(ValueError, match="No layer of Sequential has an output with 2 spatial"):
        find_layer(net, image(4))


def test_an_input_without_positions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected an input of shape N x C x spatial.*\(2, 5\)"):
        find_layer(nn.Linear(5, 2), torch.rand(2, 5))
