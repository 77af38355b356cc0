"""Where ConsensusGroupCAM looks at the mirror image, and which classes it sets apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam import ConsensusGroupCAM
from captum_groupcam.masking import Shared
from captum_groupcam.networks.outputs import BoxScore
from tests.attr.test_consensus import OPTIONS
from tests.toy_networks import SmallCNN, small_inputs


@pytest.mark.parametrize("dims", [2, 3])
def test_images_and_volumes_are_mirrored(dims: int) -> None:
    network, inputs = SmallCNN(dims, channels=9, seed=2), small_inputs(2, dims)
    consensus = ConsensusGroupCAM(network, network.features)
    maps = consensus.attribute(inputs, 2, **OPTIONS)
    assert not torch.equal(maps, consensus.attribute(inputs, 2, **OPTIONS, flip=False))


class Detector(SmallCNN):
    """Gives one box an image, with the probability of a class as its score."""

    def forward(self, inputs: list[Tensor]) -> list[dict[str, Tensor]]:
        scores = super().forward(torch.stack(inputs)).softmax(1)[:, 1:2]
        box, label = torch.tensor([[0.0, 0.0, 12.0, 24.0]]), torch.ones(1, dtype=torch.long)
        return [{"boxes": box, "labels": label, "scores": score} for score in scores]


class Segmenter(SmallCNN):
    """Classes at each position, N x classes x H x W."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.features(inputs).movedim(1, -1)).movedim(-1, 1)


def forward_with_places(network: SmallCNN, inputs: Tensor) -> dict[str, tuple[Callable, tuple]]:
    """Functions of the image whose score names a place, with what ``attribute`` gets after it."""
    weights = torch.linspace(0, 1, inputs[0, 0].numel(), dtype=inputs.dtype)
    weights = weights.view_as(inputs[0, 0])
    each = weights.expand(len(inputs), 1, -1, -1)

    def weighed(x: Tensor, w: Tensor) -> Tensor:
        return network(x * torch.as_tensor(w))

    def listed(x: Tensor, each: list[Tensor]) -> Tensor:
        return network(x * torch.stack(each).unsqueeze(1))

    def positions(x: Tensor) -> Tensor:
        return F.interpolate(network.features(x).sum(1, keepdim=True), x.shape[2:]).flatten(1)

    boxes = torch.tensor([[0, 0, 12, 24]]).expand(len(inputs), -1)
    return {
        "target": (Segmenter(), ((1, 2, 5),)),
        "position": (positions, (7,)),
        "argument": (weighed, (1, each)),
        "array": (weighed, (1, each.numpy())),
        "entries": (listed, (1, list(each[:, 0]))),
        "of all": (weighed, (1, weights)),
        "of a column": (weighed, (1, weights[0])),
        "shared": (weighed, (1, Shared(weights))),
        "box": (BoxScore(Detector()), (None, (boxes, torch.ones(len(inputs), dtype=torch.long)))),
    }


PLACES = [
    "target",
    "position",
    "argument",
    "array",
    "entries",
    "shared",
    "box",
    "of all",
    "of a column",
]


@pytest.mark.parametrize("what", PLACES)
def test_what_may_name_a_place_is_not_mirrored(what: str) -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    forward, arguments = forward_with_places(network, inputs)[what]
    inner = getattr(forward, "model", forward)
    layer = inner.features if isinstance(inner, nn.Module) else network.features
    consensus = ConsensusGroupCAM(forward, layer)
    maps = consensus.attribute(inputs, *arguments, **OPTIONS)
    assert maps.any()
    assert torch.equal(maps, consensus.attribute(inputs, *arguments, **OPTIONS, flip=False))


def test_another_input_is_not_mirrored_and_numbers_change_nothing() -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    seen = torch.ones(2, 24, 24, dtype=torch.bool)
    masked = ConsensusGroupCAM(lambda x, m: network(x * m.unsqueeze(1)), network.features)
    plain = ConsensusGroupCAM(network, network.features)
    maps, _ = masked.attribute((inputs, seen), 1, **OPTIONS)
    assert torch.equal(maps, plain.attribute(inputs, 1, **OPTIONS, flip=False))
    mirrored = plain.attribute(inputs, 1, **OPTIONS)
    scaled = ConsensusGroupCAM(lambda x, s, t: network(x) * s, network.features)
    for numbers in ((1.0, None), (torch.ones(2, 1), "word"), (Shared(torch.ones(1)), True)):
        assert torch.equal(scaled.attribute(inputs, 1, numbers, **OPTIONS), mirrored)


def test_classes_in_either_dimension_are_not_contrasted() -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    weights = torch.linspace(0.5, 1.5, 4, dtype=torch.double)

    def classes_first(x: Tensor) -> Tensor:
        return network(x).unsqueeze(2) * weights

    def classes_last(x: Tensor) -> Tensor:
        return classes_first(x).movedim(1, 2)

    found = [
        ConsensusGroupCAM(forward, network.features).attribute(
            inputs, target, **OPTIONS, score_func=lambda output, axis=axis: output.softmax(axis)
        )
        for forward, target, axis in ((classes_first, (1, 2), 1), (classes_last, (2, 1), 2))
    ]
    assert found[0].any()
    torch.testing.assert_close(*found)
