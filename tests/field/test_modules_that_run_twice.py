"""A module that runs several times in one pass has several candidates, none of them chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam.networks import TargetLayer, check_layer, find_layer


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
