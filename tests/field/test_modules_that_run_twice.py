"""A module that runs several times in one pass has several candidates, none of them chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import GradCAM
from captum_groupcam.networks import (
    TargetLayer,
    check_layer,
    find_layer,
    find_reshape_transform,
)


class Siamese(nn.Module):
    """One encoder for two images."""

    def __init__(self, *, fused: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.fuse = nn.Conv2d(16, 8, 3) if fused else None
        self.fc = nn.Linear(8 if fused else 16, 5)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        both = torch.cat([self.encoder(a), self.encoder(b)], 1)
        return self.fc((both if self.fuse is None else self.fuse(both)).mean((2, 3)))


def pair() -> tuple[Tensor, Tensor]:
    return torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)


def test_the_error_says_that_it_runs_twice() -> None:
    with pytest.raises(ValueError, match="runs 2 times in one pass") as caught:
        find_layer(Siamese().eval(), pair())
    assert "encoder (call 0), 1 x 8 x 14 x 14: the module runs 2 times" in str(caught.value)
    assert "encoder (call 1), 1 x 8 x 14 x 14: the module runs 2 times" in str(caught.value)


def test_what_comes_after_both_is_found() -> None:
    assert find_layer(Siamese(fused=True).eval(), pair()).name == "fuse"


def test_the_check_says_so() -> None:
    net = Siamese().eval()
    check = check_layer(net, TargetLayer.of(net, "encoder"), pair())
    assert not check.fits
    assert "it runs 2 times in one pass" in str(check)


class Frames(nn.Module):
    """Frames (N x C x T x H x W) one after the other through an image network."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.fc = nn.Linear(8, 5)

    def forward(self, clip: Tensor) -> Tensor:
        frames = [self.image(frame).mean((2, 3)) for frame in clip.unbind(2)]
        return self.fc(torch.stack(frames).mean(0))


def test_frames_through_one_network_are_not_taken_for_a_clip() -> None:
    with pytest.raises(ValueError, match="No layer of Frames"):
        find_layer(Frames().eval(), torch.rand(1, 3, 4, 12, 12))


class FramesAsBatch(Frames):
    """The same with frames among the samples."""

    def forward(self, clip: Tensor) -> Tensor:
        features = self.image(clip.transpose(1, 2).flatten(0, 1)).mean((2, 3))
        return self.fc(features.unflatten(0, (len(clip), -1)).mean(1))


def test_frames_among_the_samples_are_regrouped_by_a_transform_of_ones_own() -> None:
    net, clip = FramesAsBatch().eval(), torch.rand(2, 3, 4, 12, 12)
    with pytest.raises(ValueError, match="No layer of FramesAsBatch"):
        find_layer(net, clip)

    def by_clip(maps: Tensor) -> Tensor:
        return maps.unflatten(0, (-1, 4)).transpose(1, 2)

    def wrongly(maps: Tensor) -> Tensor:
        return maps.unflatten(0, (4, -1)).transpose(0, 1).transpose(1, 2)

    layers = [TargetLayer.of(net, "image", reshape_transform=one) for one in (by_clip, wrongly)]
    assert [check_layer(net, layer, clip).fits for layer in layers] == [True, False]


class Tied(nn.Module):
    """The same block several times, then the mean or a pooling module."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.i = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.i(x)
        for _ in range(3):
            x = x + self.b(x) if self.kind == "residual" else self.b(x)
        return self.fc(self.pool(x).flatten(1) if self.kind == "pooled" else x.mean((2, 3)))


@pytest.mark.parametrize(("kind", "place"), [("plain", "b (call 2)"), ("residual", "b (call 2)")])
def test_a_block_that_runs_several_times_is_not_passed_over(kind: str, place: str) -> None:
    net, x = Tied(kind).eval(), torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"b of Tied runs 3 times in one pass") as caught:
        find_layer(net, x)
    message = str(caught.value)
    assert place in message
    assert "layer_call=0 to 2" in message
    assert "TargetLayer(model.get_submodule('b'), 'b', layer_call=2" in message
    assert "TargetLayer.of(model, 'i')" in message
    # What it says is to be done.
    at_input = kind == "residual"
    assert ("attribute_to_layer_input=True" in message) == at_input
    layer = TargetLayer(net.b, "b", attribute_to_layer_input=at_input, layer_call=2)
    maps = GradCAM(net, layer.module).attribute(x, 1, **layer.keywords)
    assert maps.shape == (1, 1, 16, 16)


def test_the_input_of_the_pooling_is_found_behind_it() -> None:
    found = find_layer(Tied("pooled").eval(), torch.rand(1, 3, 16, 16))
    assert (found.name, found.attribute_to_layer_input) == ("pool", True)


class TiedTransformer(nn.Module):
    """One layer of a transformer several times; the class token or the mean is the output."""

    def __init__(self, *, class_token: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16)) if class_token else None
        self.positions = nn.Parameter(torch.randn(1, 16 + class_token, 16))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.positions
        for _ in range(4):
            x = self.layer(x)
        return self.fc(x[:, 0] if self.token is not None else x.mean(1))


@pytest.mark.parametrize(("class_token", "call"), [(True, 2), (False, 3)])
def test_a_tied_transformer_names_its_call(*, class_token: bool, call: int) -> None:
    """After the last attention only the class token counts, so that it is the call before."""
    torch.manual_seed(0)
    net, x = TiedTransformer(class_token=class_token).eval(), torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"runs 4 times in one pass") as caught:
        find_layer(net, x)
    message = str(caught.value)
    assert f"layer (call {call})" in message
    assert "find_reshape_transform(model, layer, inputs)" in message
    transform = find_reshape_transform(net, net.layer, x)
    maps = GradCAM(net, net.layer).attribute(x, 1, reshape_transform=transform, layer_call=call)
    assert maps.shape == (1, 1, 4, 4)
    assert TargetLayer.of(net, "patches").name == "patches"


class SharedParts(nn.Module):
    """A norm and an activation that all blocks share, as ordinary networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.norm, self.act, self.fc = nn.GroupNorm(2, 8), nn.PReLU(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.first, self.second):
            x = self.act(self.norm(conv(x)))
        return self.fc(x.mean((2, 3)))


def test_norms_and_activations_that_are_shared_are_no_alarm() -> None:
    assert find_layer(SharedParts().eval(), torch.rand(1, 3, 16, 16)).name == "second"


class SharedHead(nn.Module):
    """One head on maps of two sizes, behind a layer that leads to both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.head, self.fc = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        levels = x, nn.functional.avg_pool2d(x, 2)
        return self.fc(sum(self.head(level).mean((2, 3)) for level in levels))


class HeadOfOneLevel(SharedHead):
    """The output is that of one of its calls, as the score of a box is."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        levels = x, nn.functional.avg_pool2d(x, 2)
        first, _ = (self.head(level).mean((2, 3)) for level in levels)
        return self.fc(first)


def test_a_head_of_which_one_call_counts_is_no_alarm() -> None:
    """Its calls do not follow on one another."""
    assert find_layer(HeadOfOneLevel().eval(), torch.rand(1, 3, 16, 16)).name == "stem"


def test_a_head_that_several_maps_share_is_no_alarm() -> None:
    """None of its calls leads all of the input on."""
    assert find_layer(SharedHead().eval(), torch.rand(1, 3, 16, 16)).name == "stem"
