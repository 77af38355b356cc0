"""Additional arguments that are no tensors and have an entry for each sample, or seem to."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import EigenCAM, GradCAM, GroupCAM
from captum_groupcam.masking import Shared
from captum_groupcam.metrics.functional import average_drop, deletion_insertion

from .beside_arguments import CONV, METHODS

CAPTIONS = ["a cat", "two dogs", "a horse on the moon"]


def encoded(caption: str) -> Tensor:
    generator = torch.Generator().manual_seed(len(caption))
    return torch.rand(8, generator=generator) + 0.1


def joined(images: Tensor, captions: Sequence[str]) -> Tensor:
    """Needs as many captions as images."""
    return CONV(images).mean((2, 3)) * torch.stack([encoded(one) for one in captions])


def paired(images: Tensor, captions: Sequence[str]) -> Tensor:
    """Takes the first captions, however many there are."""
    rows = [x * encoded(one) for x, one in zip(CONV(images).mean((2, 3)), captions)]  # noqa: B905
    return torch.stack(rows)


def explained(method: str, forward: Any, argument: Any, images: Tensor, **more: Any) -> Tensor:
    make, options = METHODS[method]
    return make(forward).attribute(
        images, target=1, additional_forward_args=(argument,), **options, **more
    )


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("internal_batch_size", [1, 2, None])
@pytest.mark.parametrize("forward", [joined, paired])
@pytest.mark.parametrize("method", METHODS)
def test_captions_go_with_their_images(
    method: str, forward: Any, internal_batch_size: int | None, n: int
) -> None:
    images, captions = torch.rand(n, 3, 16, 16), CAPTIONS[:n]
    found = explained(method, forward, captions, images, internal_batch_size=internal_batch_size)
    assert captions == CAPTIONS[:n]
    for sample, caption in enumerate(captions):

        def alone(pixels: Tensor, caption: str = caption) -> Tensor:
            return joined(pixels, [caption] * len(pixels))

        make, options = METHODS[method]
        expected = make(alone).attribute(images[sample : sample + 1], target=1, **options)
        torch.testing.assert_close(found[sample : sample + 1], expected)


@dataclass
class Batch:
    captions: Any
    bank: Any
    factor: float = 2.0


KINDS = {
    "tuple": (tuple, lambda argument: argument),
    "array": (np.array, lambda argument: [str(one) for one in argument]),
    "masked array": (np.ma.array, lambda argument: [str(one) for one in argument]),
    "dict": (lambda c: {"captions": c, "size": (4, 4)}, lambda argument: argument["captions"]),
    "dataclass": (lambda c: Batch(c, Shared(torch.rand(3, 8))), lambda argument: argument.captions),
    "beside rows": (
        lambda c: {"captions": c, "rows": torch.zeros(3, 8)},
        lambda argument: [c for c, _ in zip(argument["captions"], argument["rows"], strict=True)],
    ),
    "dicts": (lambda c: [{"text": one} for one in c], lambda a: [one["text"] for one in a]),
    "ragged": (
        lambda c: [torch.arange(len(one)) for one in c],
        lambda argument: ["x" * len(one) for one in argument],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_forms_of_lists(kind: str) -> None:
    make, take = KINDS[kind]
    images = torch.rand(3, 3, 16, 16)
    for method in ("GroupCAM", "GradCAM"):
        found = explained(
            method,
            lambda pixels, argument: joined(pixels, take(argument)),
            make(CAPTIONS),
            images,
            internal_batch_size=2,
        )
        expected = explained(method, joined, CAPTIONS, images)
        torch.testing.assert_close(found, expected)


def test_an_array_of_rows_is_dealt_out() -> None:
    images, shift = torch.rand(3, 3, 16, 16), np.random.default_rng(0).random((3, 8), np.float32)

    def shifted(pixels: Tensor, given: Any) -> Tensor:
        return CONV(pixels).mean((2, 3)) * torch.as_tensor(given)

    for method in METHODS:
        found = explained(method, shifted, shift, images, internal_batch_size=2)
        expected = explained(method, shifted, torch.tensor(shift), images)
        torch.testing.assert_close(found, expected)


def test_two_lists_that_belong_together() -> None:
    def both(pixels: Tensor, first: list[str], second: list[str]) -> Tensor:
        together = [one + other for one, other in zip(first, second, strict=True)]
        return joined(pixels, together)

    images, ends = torch.rand(3, 3, 16, 16), [" in rain", "", " at night, far away"]
    found = GradCAM(both, CONV).attribute(images, 1, (CAPTIONS, ends), internal_batch_size=2)
    whole = [one + other for one, other in zip(CAPTIONS, ends, strict=True)]
    expected = GradCAM(joined, CONV).attribute(images, 1, (whole,))
    torch.testing.assert_close(found, expected)


def similar(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Images x prompts: the names of the classes belong to all images."""
    return CONV(images).mean((2, 3)) @ torch.stack([encoded(one) for one in prompts]).T


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    return CONV(nn.functional.interpolate(images, size=size)).mean((2, 3))


def weighted(images: Tensor, weights: list[float]) -> Tensor:
    return CONV(images).mean((2, 3)) * sum(weights)


OF_ALL = {
    "prompts": (similar, CAPTIONS[:2]),
    "size": (resized, (8, 12)),
    "weights": (weighted, [0.2, 0.5]),
    "array": (weighted, np.array([0.2, 0.5])),
}


@pytest.mark.parametrize("internal_batch_size", [1, 2, 3, None])
@pytest.mark.parametrize("kind", OF_ALL)
def test_lists_that_belong_to_all_samples_stay_whole(
    kind: str, internal_batch_size: int | None
) -> None:
    forward, argument = OF_ALL[kind]
    images = torch.rand(2, 3, 16, 16)
    for method in METHODS:
        options = {"internal_batch_size": internal_batch_size}
        found = explained(method, forward, argument, images, **options)
        make, given = METHODS[method]
        inside = make(lambda pixels: forward(pixels, argument))
        torch.testing.assert_close(found, inside.attribute(images, target=1, **given, **options))
        torch.testing.assert_close(
            found, explained(method, forward, Shared(argument), images, **options)
        )


def test_lists_of_other_lengths_cost_no_pass() -> None:
    seen: list[int] = []

    def recorded(pixels: Tensor, prompts: list[str]) -> Tensor:
        seen.append(len(pixels))
        return similar(pixels, prompts)

    EigenCAM(recorded, CONV).attribute(torch.rand(2, 3, 16, 16), 1, (CAPTIONS,))
    assert seen == [2]


def test_networks_whose_samples_depend_on_each_other_get_their_entries() -> None:
    def centred(pixels: Tensor, captions: Sequence[str]) -> Tensor:
        output = joined(pixels, captions)
        return output - 0.1 * output.mean(0)

    images = torch.rand(3, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = GradCAM(centred, CONV).attribute(images, 1, (CAPTIONS,), internal_batch_size=3)
    rows = torch.stack([encoded(one) for one in CAPTIONS])

    def inside(pixels: Tensor) -> Tensor:
        output = CONV(pixels).mean((2, 3)) * rows
        return output - 0.1 * output.mean(0)

    torch.testing.assert_close(found, GradCAM(inside, CONV).attribute(images, 1))


def test_measures_deal_them_out_too() -> None:
    images, maps = torch.rand(3, 3, 16, 16), torch.rand(3, 1, 16, 16)
    rows = torch.stack([encoded(one) for one in CAPTIONS])

    def with_rows(pixels: Tensor, given: Tensor) -> Tensor:
        return CONV(pixels).mean((2, 3)) * given

    for measure in (average_drop, deletion_insertion):
        found = measure(joined, maps, images, 1, (CAPTIONS,))
        torch.testing.assert_close(tuple(found), tuple(measure(with_rows, maps, images, 1, rows)))


def test_networks_that_fail_fail_as_they_do() -> None:
    def failing(pixels: Tensor, captions: list[str]) -> Tensor:
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        GroupCAM(failing, CONV).attribute(torch.rand(3, 3, 16, 16), 1, (CAPTIONS,))
