"""Targets, boxes and regions that stay where they are while an image is mirrored."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import RISE, GradCAM, LayerCAM
from captum_groupcam.attr.smoothed import Smoothed
from captum_groupcam.methods import METHODS
from captum_groupcam.networks import BoxScore, RegionMean
from tests.toy_networks import classifier, images


@pytest.fixture
def segmenter() -> nn.Sequential:
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second).eval()


@pytest.mark.parametrize("target", [(1, 4, 2), [(1, 4, 2), (0, 9, 9)]], ids=["one", "each"])
def test_a_pixel_is_refused(segmenter, target) -> None:
    x, plain = images(2, 16, 16), LayerCAM(segmenter, segmenter[0])
    with pytest.raises(ValueError, match=r"\(1, 4, 2\) names a place .* RegionMean .* flip=False"):
        Smoothed(plain).attribute(x, target)
    found = Smoothed(plain).attribute(x, target, flip=False, factors=(1.0,))
    torch.testing.assert_close(found, plain.attribute(x, target))
    with pytest.raises(ValueError, match="names a place"):
        Smoothed(RISE(segmenter)).attribute(x, targets=[target, target], n_masks=4)


@pytest.mark.parametrize("smooth", ["flips", "both"])
def test_a_pixel_is_refused_by_name(segmenter, smooth) -> None:
    explain = METHODS["layer_cam"](segmenter, segmenter[0], smooth=smooth)
    other = {"flips": "none", "both": "component"}[smooth]
    with pytest.raises(ValueError, match=f"names a place .* or give smooth={other}"):
        explain(images(1, 16, 16), (1, 4, 2))
    regions = Fixed(RegionMean(segmenter), region((1, 16, 16)))
    with pytest.raises(ValueError, match="is a RegionMean"):
        METHODS["layer_cam"](regions, segmenter[0], smooth=smooth)(images(1, 16, 16), 1)


@pytest.mark.parametrize("flat", [nn.Flatten(), nn.Flatten(1, 2)], ids=["N x HW", "N x HW x 1"])
def test_one_index_that_names_a_pixel_is_refused(segmenter, flat) -> None:
    one = nn.Conv2d(2, 1, 1)
    shape = nn.Identity() if flat.end_dim == -1 else nn.Unflatten(1, (256, 1))
    network = nn.Sequential(segmenter, one, nn.Flatten(), shape).eval()
    with pytest.raises(ValueError, match="has places, and the one that a target names"):
        Smoothed(GradCAM(network, segmenter[0])).attribute(images(1, 16, 16), 40)


def region(shape: tuple[int, ...]) -> Tensor:
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[..., :4] = True
    return inside


class Fixed(nn.Module):
    """Asks a network about the same region of each image."""

    def __init__(self, model: nn.Module, inside: Tensor) -> None:
        super().__init__()
        self.model, self.inside = model, inside

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, self.inside)


def test_a_region_among_the_inputs_is_mirrored_and_others_are_refused(segmenter) -> None:
    x, inside = images(2, 16, 16), region((2, 16, 16))
    plain = LayerCAM(RegionMean(segmenter), segmenter[0])
    found, _ = Smoothed(plain).attribute((x, inside), 1, factors=(1.0,))
    mirrored = plain.attribute((x.flip(3), inside.flip(2)), 1)[0].flip(3)
    torch.testing.assert_close(found, (plain.attribute((x, inside), 1)[0] + mirrored) / 2)
    assert not found[..., 6:].any()

    pooled = nn.Sequential(*segmenter, nn.MaxPool2d(2)).eval()
    coarse = region((2, 8, 8))
    for network, given in (
        (RegionMean(pooled), (x, coarse)),
        (Fixed(RegionMean(segmenter), inside), x),
    ):
        with pytest.raises(ValueError, match=r"regions are not mirrored .* or flip=False"):
            Smoothed(LayerCAM(network, segmenter[0])).attribute(given, 1)
    with pytest.raises(ValueError, match="regions are not mirrored"):
        Smoothed(LayerCAM(RegionMean(pooled), segmenter[0])).attribute(x, 1, coarse)


class Halves(nn.Module):
    """A detector with a box for each half of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, inputs: list[Tensor]) -> list[dict[str, Tensor]]:
        features = self.layer(torch.stack(inputs)).mean(1)
        scores = torch.stack([features[..., :8].mean((1, 2)), features[..., 8:].mean((1, 2))], 1)
        boxes = torch.tensor([[0.0, 0, 8, 16], [8, 0, 16, 16]])
        return [{"boxes": boxes, "labels": torch.ones(2), "scores": row} for row in scores]


def test_a_box_is_refused() -> None:
    x, boxes = images(1, 16, 16), torch.tensor([[0.0, 0, 8, 16]])
    detector = BoxScore(Halves()).eval()
    plain = GradCAM(detector, detector.model.layer)
    asked = (boxes, torch.ones(1))
    with pytest.raises(ValueError, match=r"boxes are not mirrored .* give flip=False"):
        Smoothed(plain).attribute(x, additional_forward_args=asked)
    through = GradCAM(lambda image: detector(image, *asked), detector.model.layer)
    with pytest.raises(ValueError, match="boxes are not mirrored"):
        Smoothed(through).attribute(x)
    Smoothed(plain).attribute(x, additional_forward_args=asked, flip=False)


@pytest.mark.parametrize("target", [1, (1,), [1, 3], torch.tensor([1, 3])])
def test_classes_are_no_places(target) -> None:
    network, x = classifier(seed=2), images(2, 16, 16)
    plain = GradCAM(network, network.features)
    expected = (plain.attribute(x, target) + plain.attribute(x.flip(3), target).flip(3)) / 2
    found = Smoothed(plain).attribute(x, target, factors=(1.0,))
    torch.testing.assert_close(found, expected)
