from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from captum_groupcam import RISE, ConsensusGroupCAM, GroupCAM, ScoreCAM
from captum_groupcam.metrics.functional import deletion_insertion
from captum_groupcam.networks.layers import find_layer
from captum_groupcam.networks.outputs import (
    BoxScore,
    RegionMean,
    SelectOutput,
    best_box_scores,
    region_mean,
    select_output,
)
from tests.toy_networks import classifier, hooks, images, seeded


class ModelOutput(OrderedDict):
    """As in Hugging Face's transformers: a mapping with attributes and positions."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else tuple(self.values())[key]

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class Outputs(NamedTuple):
    features: Tensor
    logits: Tensor


class Giving(nn.Module):
    """A classifier that gives its logits among other things."""

    def __init__(self, pack: Any) -> None:
        super().__init__()
        self.network = classifier()
        self.pack = pack
        self.eval()

    def forward(self, inputs: Tensor) -> Any:
        features = self.network.features(inputs)
        return self.pack(features, self.network.head(features))


OUTPUTS = {
    "tuple": (lambda features, logits: (features, logits), 1),
    "named_tuple": (Outputs, "logits"),
    "named_tuple_by_position": (Outputs, -1),
    "dict": (lambda features, logits: {"aux": features, "out": logits}, "out"),
    "model_output": (lambda features, logits: ModelOutput(loss=features, logits=logits), "logits"),
    "model_output_by_position": (lambda features, logits: ModelOutput(a=features, b=logits), 1),
    "function": (lambda features, logits: [[features, logits]], lambda output: output[0][1]),
}


@pytest.mark.parametrize("method", [GroupCAM, ScoreCAM, ConsensusGroupCAM, RISE])
@pytest.mark.parametrize(("pack", "select"), OUTPUTS.values(), ids=OUTPUTS)
def test_a_selected_output_is_explained_like_a_network_that_gives_it(
    method: type, pack: Any, select: Any
) -> None:
    model = Giving(pack)
    layer = () if method is RISE else (model.network.features,)
    options = {"n_masks": 6, "seed": 0} if method is RISE else {}
    inputs = images(2, 16, 16)
    expected = method(model.network, *layer).attribute(inputs, target=3, **options)
    found = method(SelectOutput(model, select), *layer).attribute(inputs, target=3, **options)
    torch.testing.assert_close(found, expected)
    assert expected.any()


def test_an_adapter_keeps_the_modules_and_leaves_no_hook() -> None:
    model = Giving(OUTPUTS["dict"][0])
    adapter = SelectOutput(model, "out")
    assert adapter.get_submodule("model.network.features") is model.network.features
    GroupCAM(adapter, model.network.features).attribute(images(1, 16, 16), target=0)
    assert hooks(adapter).total() == 0


def test_an_adapter_finds_the_layer_that_the_network_has() -> None:
    network = classifier()
    adapter = SelectOutput(nn.Sequential(network, Pack()).eval(), "out")
    expected = find_layer(network, images(1, 16, 16))
    found = find_layer(adapter, images(1, 16, 16))
    assert found == replace(expected, name=f"model.0.{expected.name}")


class Pack(nn.Module):
    def forward(self, logits: Tensor) -> dict[str, Tensor]:
        return {"out": logits}


def test_an_adapter_takes_the_mode_of_the_network_and_leaves_its_parts_alone() -> None:
    model = Giving(OUTPUTS["dict"][0]).train()
    model.network.features.eval()
    assert SelectOutput(model, "out").training
    assert not model.network.features.training
    assert not SelectOutput(model.eval(), "out").training


def test_an_adapter_goes_into_data_parallel() -> None:
    model = Giving(OUTPUTS["dict"][0])
    adapter = SelectOutput(model, "out")
    inputs = images(2, 16, 16)
    parallel = GroupCAM(nn.DataParallel(adapter).eval(), model.network.features)
    single = GroupCAM(adapter, model.network.features)
    torch.testing.assert_close(
        parallel.attribute(inputs, target=1), single.attribute(inputs, target=1)
    )


@pytest.mark.parametrize(
    ("output", "key", "error", "message"),
    [
        ({"out": torch.zeros(1)}, "logits", ValueError, r"no 'logits'.*\['out'\]"),
        ((torch.zeros(1),), 1, ValueError, r"no 1, it is a tuple of 1"),
        ((torch.zeros(1),), "logits", ValueError, "no 'logits'"),
        (torch.zeros(()), 0, ValueError, "no 0, it is a Tensor"),
        ({"loss": None}, "loss", TypeError, "to be a tensor, got NoneType"),
    ],
)
def test_what_is_not_there_is_refused(output: Any, key: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        select_output(output, key)


# --- segmentation


@pytest.fixture(scope="module")
def segmenter() -> nn.Module:
    """A network of torchvision with random weights whose output depends on the image."""
    model = seeded(
        lambda: lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    )
    return calibrated(model, model, images(4, 64, 64))


def calibrated(model: nn.Module, part: nn.Module, inputs: Tensor) -> nn.Module:
    """Gives batch norms the statistics of some inputs: with others, deep features vanish."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        part(inputs)
    return model.eval()


def test_segmentation_class_at_a_pixel(segmenter: nn.Module) -> None:
    adapter, inputs = SelectOutput(segmenter, "out"), images(2, 64, 64)
    group_cam = GroupCAM(adapter, segmenter.backbone["16"])
    maps, scores = group_cam.attribute(
        inputs, target=(2, 40, 20), n_groups=4, return_group_scores=True
    )
    assert maps.shape == (2, 1, 64, 64)
    assert maps.isfinite().all()
    assert scores.any(1).all()
    # The pixel is a class of a network that gives but this pixel.
    alone = SelectOutput(segmenter, lambda output: output["out"][:, :, 40, 20])
    torch.testing.assert_close(
        maps, GroupCAM(alone, segmenter.backbone["16"]).attribute(inputs, target=2, n_groups=4)
    )


def test_segmentation_class_in_a_region(segmenter: nn.Module) -> None:
    adapter, inputs = SelectOutput(segmenter, "out"), images(2, 64, 64)
    layer = segmenter.backbone["16"]
    regions = torch.zeros(2, 64, 64, dtype=torch.bool)
    regions[0, 40, 20] = True
    regions[1, :10, :20] = True
    maps = GroupCAM(RegionMean(adapter), layer).attribute(
        inputs, 2, additional_forward_args=regions, n_groups=4
    )
    # A region of one pixel is that pixel.
    pixel = GroupCAM(adapter, layer).attribute(inputs[:1], (2, 40, 20), n_groups=4)
    torch.testing.assert_close(maps[:1], pixel, rtol=1e-4, atol=1e-5)
    block = SelectOutput(segmenter, lambda output: output["out"][:, :, :10, :20].mean((2, 3)))
    expected = GroupCAM(block, layer).attribute(inputs[1:], 2, n_groups=4)
    torch.testing.assert_close(maps[1:], expected, rtol=1e-4, atol=1e-5)
    assert maps.flatten(1).any(1).all()


class LocalSegmenter(nn.Module):
    """Class 1 at a pixel is decided by the image around it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        bright = nn.functional.avg_pool2d(self.layer(inputs), 3, stride=1, padding=1)
        return torch.cat([torch.full_like(bright, 0.4), bright], dim=1)


def test_a_region_is_explained_by_what_is_in_it() -> None:
    inputs = torch.zeros(2, 1, 12, 12)
    inputs[:, :, 2:5, 2:5] = inputs[:, :, 8:11, 8:11] = 1.0
    regions = torch.zeros(2, 1, 12, 12)
    regions[0, :, 2:5, 2:5] = regions[1, :, 8:11, 8:11] = 1.0
    model = LocalSegmenter().eval()
    # The single channel cannot tell the spots apart; how much its gradient is, does not matter.
    result = deletion_insertion(
        RegionMean(model).eval(), regions, inputs, 1, additional_forward_args=regions
    )
    elsewhere = deletion_insertion(
        RegionMean(model).eval(), regions.flip(0), inputs, 1, additional_forward_args=regions
    )
    assert (result.over_all > elsewhere.over_all).all()


def test_region_mean_is_a_weighted_mean() -> None:
    output, weights = torch.randn(3, 4, 5, 6), torch.rand(3, 5, 6)
    expected = [
        [np.average(of_class.numpy(), weights=weight.numpy()) for of_class in sample]
        for sample, weight in zip(output, weights, strict=True)
    ]
    np.testing.assert_allclose(region_mean(output, weights), expected, atol=1e-6)
    np.testing.assert_allclose(region_mean(output, weights.unsqueeze(1)), expected, atol=1e-6)


def test_regions_that_do_not_fit_are_refused() -> None:
    output = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"\[1\] are empty"):
        region_mean(output, torch.stack([torch.ones(4, 4), torch.zeros(4, 4)]))
    with pytest.raises(ValueError, match=r"Expected regions of shape \(2, 1, 4, 4\)"):
        region_mean(output, torch.ones(2, 4, 5))
    with pytest.raises(ValueError, match="Expected regions"):
        region_mean(output, torch.ones(3, 4, 4))


# --- detection


def test_the_score_is_that_of_the_best_box() -> None:
    generator = torch.Generator().manual_seed(0)

    def some_boxes(n: int) -> Tensor:
        corner, extent = torch.rand(2, n, 2, generator=generator)
        return torch.cat([corner, corner + extent + 0.1], dim=1)

    detections = [
        {
            "boxes": some_boxes(n),
            "labels": torch.randint(1, 3, (n,), generator=generator),
            "scores": torch.rand(n, generator=generator),
        }
        for n in (0, 1, 7, 40)
    ]
    boxes, labels = some_boxes(4), torch.tensor([1, 2, 1, 2])
    for min_iou in (0.0, 0.3, 0.9):
        expected = [
            naive_score(found, box.tolist(), int(label), min_iou)
            for found, box, label in zip(detections, boxes, labels, strict=True)
        ]
        found_scores = best_box_scores(detections, boxes, labels, min_iou)
        np.testing.assert_allclose(found_scores, expected, atol=1e-7)


def naive_score(found: dict[str, Tensor], box: list[float], label: int, min_iou: float) -> float:
    best, score = min_iou, 0.0
    for (a, b, c, d), own, value in zip(
        found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True
    ):
        width = max(0.0, min(c, box[2]) - max(a, box[0]))
        height = max(0.0, min(d, box[3]) - max(b, box[1]))
        area = (c - a) * (d - b) + (box[2] - box[0]) * (box[3] - box[1]) - width * height
        if own == label and width * height / area >= best:
            best, score = width * height / area, value
    return score


def test_boxes_need_one_for_each_image() -> None:
    with pytest.raises(ValueError, match=r"each of 1 images.*\(2, 4\)"):
        best_box_scores([{}], torch.zeros(2, 4), torch.zeros(1))


class QuadrantDetector(nn.Module):
    """Gives the left upper and right lower quadrant, with scores by what is bright in them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3, padding=1)
        with torch.no_grad():
            self.layer.weight.fill_(1 / 9)
            self.layer.bias.fill_(0)
            self.layer.weight[1] *= torch.tensor([[0.0, 0, 0], [0, 9, 0], [0, 0, 0]])

    def forward(self, inputs: list[Tensor]) -> list[dict[str, Tensor]]:
        features = self.layer(torch.stack(inputs)).mean(1)
        half = features.shape[-1] // 2
        scores = torch.stack(
            [features[:, :half, :half].mean((1, 2)), features[:, half:, half:].mean((1, 2))], dim=1
        )
        boxes = torch.tensor([[0.0, 0, half, half], [half, half, 2 * half, 2 * half]])
        labels = torch.ones(2, dtype=torch.long)
        return [{"boxes": boxes, "labels": labels, "scores": row} for row in scores]


def test_the_score_of_a_box_follows_what_is_in_it() -> None:
    inputs = torch.zeros(2, 1, 8, 8)
    inputs[:, :, 1:3, 1:3] = inputs[:, :, 5:7, 5:7] = 1.0
    boxes = torch.tensor([[0.0, 0, 4, 4], [4.0, 3, 8, 8]])
    detector = BoxScore(QuadrantDetector().eval())
    labels = torch.tensor([1, 1])
    inside = torch.zeros(2, 8, 8)
    inside[0, :4, :4] = inside[1, 4:, 4:] = 1.0
    arguments = {"additional_forward_args": (boxes, labels), "protocol": "paper"}
    right = deletion_insertion(detector, inside, inputs, **arguments)
    wrong = deletion_insertion(detector, inside.flip(0), inputs, **arguments)
    assert (right.over_all > wrong.over_all).all()
    maps = GroupCAM(detector, detector.model.layer).attribute(
        inputs, additional_forward_args=(boxes, labels), n_groups=2
    )
    bright = inputs > 0
    assert (maps[bright].mean() > 2 * maps[~bright].mean()).all()


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    model = seeded(
        lambda: ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    )
    return calibrated(model, model.backbone, images(2, 320, 320))


@pytest.mark.parametrize("gradient_free", [False, True])
def test_detection_score_of_a_box(detector: nn.Module, gradient_free: bool) -> None:
    inputs = images(1, 64, 64)
    with torch.no_grad():
        (found,) = detector(inputs)
    boxes, labels = found["boxes"][:1], found["labels"][:1]
    adapter = BoxScore(detector, min_iou=0.05)
    torch.testing.assert_close(adapter(inputs, boxes, labels), found["scores"][:1])
    maps, scores = GroupCAM(adapter, detector.backbone.features[0][6]).attribute(
        inputs,
        additional_forward_args=(boxes, labels),
        gradient_free=gradient_free,
        n_groups=3,
        return_group_scores=True,
    )
    assert maps.shape == (1, 1, 64, 64)
    assert maps.isfinite().all()
    assert scores.any()


# --- several labels


def test_multi_label_sigmoid() -> None:
    """Two labels at once: each is explained by its own spot, and scored by its own sigmoid."""
    layer = nn.Conv2d(2, 2, 3, padding=1, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0] = layer.weight[1, 1] = 1 / 9
    head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    nn.init.eye_(head[-1].weight)
    model = nn.Sequential(layer, head).eval()
    inputs = torch.zeros(1, 2, 12, 12)
    inputs[0, 0, 1:4, 1:4] = inputs[0, 1, 8:11, 8:11] = 4.0
    group_cam = GroupCAM(model, layer)
    for label, place in ((0, (2, 2)), (1, (9, 9))):
        maps, scores = group_cam.attribute(
            inputs, label, score_func=torch.sigmoid, baselines=0.0, return_group_scores=True
        )
        assert divmod(int(maps.argmax()), 12) == place
        # The mask is 1 at the spot's middle and less around it.
        mask = layer(inputs)[0, label] * (layer(inputs)[0, label] > 0)
        seen = inputs * mask / mask.max()
        expected = torch.sigmoid(model(seen))[0, label] - torch.sigmoid(model(0 * inputs))[0, label]
        torch.testing.assert_close(scores[0, label], expected.detach(), rtol=1e-4, atol=1e-5)
        assert scores[0, 1 - label] == 0


@pytest.mark.parametrize("min_iou", [float("nan"), -0.1, 1.5])
def test_an_overlap_out_of_range_is_refused(min_iou: float) -> None:
    boxes, labels = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([1])
    found = {"boxes": boxes, "labels": labels, "scores": torch.tensor([0.5])}
    with pytest.raises(ValueError, match=r"min_iou must be in \[0, 1\]"):
        best_box_scores([found], boxes, labels, min_iou)


@pytest.mark.parametrize("weight", [float("nan"), -1.0])
def test_weights_of_a_region_that_mean_nothing_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="finite weights"):
        region_mean(torch.rand(1, 2, 3), torch.tensor([[1.0, weight, 1.0]]))
