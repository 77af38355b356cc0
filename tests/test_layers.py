from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from captum_groupcam import GroupCAM
from captum_groupcam.layers import find_layer

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLINGS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


def head(channels: int = 4, classes: int = 3) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def image(size: int = 12) -> Tensor:
    return torch.rand(1, 3, size, size)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_finds_the_last_layer_with_positions(dims: int) -> None:
    net = nn.Sequential(
        CONVOLUTIONS[dims](2, 4, 3),
        nn.ReLU(),
        CONVOLUTIONS[dims](4, 6, 3),
        nn.Tanh(),
        POOLINGS[dims](1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    name, module, at_input = find_layer(net, torch.rand(2, 2, *[9] * dims))
    assert (name, at_input) == ("3", False)
    assert module is net[3]


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
def test_networks_of_torchvision(name: str, expected: str) -> None:
    net = torchvision.models.get_model(name, weights=None).eval()
    inputs = image(64)
    layer = find_layer(net, inputs)
    assert (layer.name, layer.attribute_to_layer_input) == (expected, False)
    maps = GroupCAM(net, layer.module).attribute(
        inputs, 1, n_groups=2, relu_attributions=False, denoise_percentile=None
    )
    assert maps.shape == (1, 1, 64, 64)


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
    assert layer == ("pool", net.pool, True)


def test_lite0s_table_entry_is_what_the_search_finds(lite0) -> None:
    layer = find_layer(lite0.network, image(64))
    assert layer.module is lite0.layer
    assert layer.attribute_to_layer_input is lite0.attribute_to_layer_input


def test_what_is_computed_between_modules_counts() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.pool, self.flat, self.fc = head()

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.flat(self.pool(torch.relu(self.conv(x)))))

    assert find_layer(Functional(), image())[::2] == ("pool", True)


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
    with torch.inference_mode():
        assert find_layer(net, image()).name == "1"
    assert find_layer(torch.compile(net, backend="eager"), image()).module is net[1]


def small_vit() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32
    )


class Tokens1d(nn.Module):
    """A signal's patches as tokens: N x T x C looks like N x K x L."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(3, 8, 4, stride=4)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(self.embed(x).transpose(1, 2)).mean(1)


def timm_model(name: str) -> Callable[[], nn.Module]:
    return lambda: pytest.importorskip("timm").create_model(name)


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (small_vit, image(32)),
        (lambda: nn.Sequential(nn.BatchNorm2d(3), small_vit()), image(32)),
        (Tokens1d, torch.rand(1, 3, 32)),
        (timm_model("vit_tiny_patch16_224"), image(224)),
        (timm_model("swin_tiny_patch4_window7_224"), image(224)),
    ],
    ids=["vit", "vit behind batch norm", "1-D tokens", "timm vit", "timm swin"],
)
def test_transformers_are_refused(build: Callable[[], nn.Module], inputs: Tensor) -> None:
    with pytest.raises(ValueError, match=r"as in a transformer.*reshape_transform"):
        find_layer(build(), inputs)


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


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("out of order")


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_no_trace(fails: bool) -> None:
    net = nn.Sequential(
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4).eval(),
        nn.BatchNorm2d(4),
        nn.Dropout(),
        *head(),
        *([Failing()] if fails else []),
    )
    inputs = torch.randn(2, 3, 8, 8)
    before = copy.deepcopy(net.state_dict()), inputs.clone(), torch.get_rng_state()
    flags = [module.training for module in net.modules()]
    if fails:
        with pytest.raises(RuntimeError, match="out of order"):
            find_layer(net, inputs)
    else:
        find_layer(net, inputs)
    assert flags == [module.training for module in net.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    torch.testing.assert_close(net.state_dict(), before[0], rtol=0, atol=0)
    assert torch.equal(inputs, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.is_grad_enabled()
