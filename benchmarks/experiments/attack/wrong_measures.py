"""Wrong calls of measures, advice, outputs and models, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from captum_groupcam import GroupCAM
from captum_groupcam.analysis.layer_advice import suggest_layer
from captum_groupcam.analysis.uncertainty import maximum_probability, scored_masks, standard_error
from captum_groupcam.augmentation import above_mean, blur_background
from captum_groupcam.metrics.functional import (
    DeletionInsertionProtocol,
    average_drop,
    boxes_to_masks,
    deletion_insertion,
    pointing_game,
)
from captum_groupcam.models import load_model
from captum_groupcam.networks.layers import find_layer, find_reshape_transform
from captum_groupcam.networks.outputs import SelectOutput, best_box_scores, region_mean

from .wrong_values import INF, NAN, Call, bad_inputs, of

__all__ = ["other_calls"]


def other_calls(net: nn.Sequential, good: Tensor, maps: Tensor) -> Iterator[tuple[str, Call]]:
    """Measures, advice, outputs and models."""
    for step in (0, -1, 1.5, NAN, "a", True, None, INF, [1]):
        yield f"protocol, step={step!r}", of(DeletionInsertionProtocol, step)
    bad_maps: dict[str, Any] = {
        "half the size": maps[..., :8, :8],
        "NaN": maps * NAN,
        "three channels": good,
        "an array": maps.numpy(),
        "one for two": maps[:1],
        "None": None,
        "complex": maps.to(torch.complex64),
        "sparse": maps.to_sparse(),
        "meta": maps.to("meta"),
    }
    boxes = [torch.tensor([[0, 0, 4, 4]])] * 2
    for what, wrong in bad_maps.items():
        yield f"deletion_insertion, maps: {what}", of(deletion_insertion, net, wrong, good, 1)
        yield f"average_drop, maps: {what}", of(average_drop, net, wrong, good, 1)
        if what != "half the size":
            yield f"pointing_game, maps: {what}", of(pointing_game, wrong, boxes=boxes)
    for option, values in {"protocol": ("x", None), "seed": ("a", 1.5, True, 2**70)}.items():
        for value in values:
            call = of(deletion_insertion, net, maps, good, 1, **{option: value})
            yield f"deletion_insertion, {option}={value!r}", call
    for what, wrong_boxes in {
        "None": [None, None],
        "a word": "ab",
        "NaN": [torch.full((1, 4), NAN)] * 2,
        "infinite": [torch.tensor([[0.0, 0.0, INF, INF]])] * 2,
        "outside": [torch.tensor([[100, 100, 120, 120]])] * 2,
        "none": [torch.zeros(0, 4)] * 2,
        "flipped": [torch.tensor([[4, 4, 0, 0]])] * 2,
        "three numbers": [torch.ones(1, 3)] * 2,
        "one for two": boxes[:1],
    }.items():
        yield f"pointing_game, boxes: {what}", of(pointing_game, maps, boxes=wrong_boxes)
        if what not in {"one for two", "none", "outside"}:
            yield f"boxes_to_masks: {what}", of(boxes_to_masks, wrong_boxes, (16, 16))
    of_pointing: Mapping[str, tuple[Any, ...]] = {
        "tolerance": (-1, NAN, "15", None, INF),
        "image_size": ("16", (16,), (0, 16), (16.5, 16), [None, 1]),
    }
    for option, values in of_pointing.items():
        for value in values:
            call = of(pointing_game, maps, boxes=boxes, **{option: value})
            yield f"pointing_game, {option}={value!r}", call
    for what, masks in {
        "empty": torch.zeros(2, 16, 16),
        "four dimensions": torch.ones(2, 1, 16, 16),
        "NaN": torch.full((2, 16, 16), NAN),
        "no pixels": [torch.ones(0, 16)] * 2,
    }.items():
        yield f"pointing_game, masks: {what}", of(pointing_game, maps, masks=masks)
    of_advice: Mapping[str, tuple[Any, ...]] = {
        "layers": ("0", [], ["nope"], ["3"], [""], [net[0]], [3]),
        "confidence": (2, NAN, 95, 0),
        "seed": ("a", 1.5),
    }
    for option, values in of_advice.items():
        for value in values:
            chosen: dict[str, Any] = {"layers": ["0"], "n_groups": 2} | {option: value}
            yield (
                f"suggest_layer, {option}={value!r:.30}",
                of(suggest_layer, net, good, 1, **chosen),
            )
    for what, inputs in bad_inputs(good).items():
        if what not in {"no batch", "six dimensions"}:
            yield f"find_layer, inputs: {what}", of(find_layer, net, inputs)
            yield f"suggest_layer, inputs: {what}", of(suggest_layer, net, inputs, 1)
            call = of(find_reshape_transform, net, net[0], inputs)
            yield f"find_reshape_transform, inputs: {what}", call
    for model in (None, 3, lambda inputs: inputs, nn.Flatten()):
        yield f"find_layer of {model!r:.20}", of(find_layer, model, good)
        if not isinstance(model, nn.Module):
            yield f"SelectOutput of {model!r:.20}", of(SelectOutput, model, "a")
    yield from _of_scored(net, good)
    yield from (
        (f"region_mean {index}", of(region_mean, *arguments))
        for index, arguments in enumerate(
            (
                (torch.rand(2, 5, 4, 4), torch.zeros(2, 4, 4)),
                (torch.rand(2, 5, 4, 4), torch.zeros(2, 3, 4)),
                (torch.rand(2, 5, 4, 4), -torch.ones(2, 4, 4)),
                (torch.rand(2, 5, 4, 4), torch.full((2, 4, 4), NAN)),
                (torch.rand(2, 5), torch.ones(2)),
            )
        )
    )
    box, found = torch.tensor([[0.0, 0, 1, 1]]), {"boxes": torch.zeros(0, 4)}
    label = torch.tensor([1])
    yield "best_box_scores, no scores", of(best_box_scores, [found], box, label)
    yield "best_box_scores, two boxes", of(best_box_scores, [found], box.repeat(2, 1), label)
    for least in (NAN, 5, -1):
        yield f"best_box_scores {least}", of(best_box_scores, [], box[:0], label[:0], least)
    for name in ("resnet999", "", None, 3, "timm:", "timm:nope", "../etc/passwd", "os.system"):
        yield f"load_model({name!r})", of(load_model, name)
    for weights in ("nope", "/etc/passwd", "/tmp", "", 3):  # noqa: S108
        yield f"load_model, weights={weights!r}", of(load_model, "squeezenet1_1", weights)
    for layer in ("nope", "", 3):
        yield (
            f"load_model, layer={layer!r}",
            of(load_model, "squeezenet1_1", "random", layer=layer),
        )


def _of_scored(net: nn.Sequential, good: Tensor) -> Iterator[tuple[str, Call]]:
    """Errors of maps, masks by which backgrounds are blurred."""
    scored = scored_masks(GroupCAM(net, net[0]), good, 1, n_groups=4)
    masks, scores = scored.masks, scored.scores
    regions = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    for what, wrong in {
        "NaN": scores * NAN,
        "one sample": scores[0],
        "more groups": torch.rand(2, 9),
        "fewer groups": scores[:, :2],
        "integers": torch.ones(2, 4, dtype=torch.long),
        "a list": scores.tolist(),
    }.items():
        yield f"standard_error, scores: {what}", of(standard_error, masks, wrong, (16, 16))
        yield (
            f"maximum_probability, scores: {what}",
            of(maximum_probability, masks, wrong, regions),
        )
    for size in ((16,), (0, 16), (16.0, 16.0), (16, 16, 16), ("16", 16)):
        call = of(standard_error, masks, scores, size)
        yield f"standard_error, size={size}", call
    for option, values in {"n_resamples": (0, 1, 2.5, "9"), "seed": (-1, 1.5, "a")}.items():
        for value in values:
            call = of(standard_error, masks, scores, (16, 16), **{option: value})
            yield f"standard_error, {option}={value!r}", call
    call = of(standard_error, torch.rand(2, 4, 16, 16), scores, (16, 16))
    yield "standard_error, masks: a tensor", call
    for what, wrong in {"floats": regions.float(), "no channel": regions[:, 0]}.items():
        call = of(maximum_probability, masks, scores, wrong)
        yield f"maximum_probability, regions: {what}", call
    for sample in (9, -1, 0.5):
        yield f"of_sample({sample})", of(scored.of_sample, sample)
    yield "above_mean, NaN", of(above_mean, torch.full((1, 1, 4, 4), NAN))
    for what, mask in {"half the size": regions[..., :8, :8], "7": regions * 7.0}.items():
        yield f"blur_background, masks: {what}", of(blur_background, good, mask)
