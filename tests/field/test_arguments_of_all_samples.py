"""Additional arguments that belong to all samples, and happen to have as many rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import RISE, GroupCAM, ScoreCAM
from captum_groupcam.masking import Shared
from captum_groupcam.metrics.functional import deletion_insertion

CONV = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
METHODS = {
    "GroupCAM": lambda forward: GroupCAM(forward, CONV),
    "ScoreCAM": lambda forward: ScoreCAM(forward, CONV),
    "RISE": lambda forward: RISE(forward),
}
OPTIONS = {"GroupCAM": {"n_groups": 4}, "ScoreCAM": {}, "RISE": {"n_masks": 9}}


def similarity(images: Tensor, prompts: Tensor) -> Tensor:
    """Images x prompts, as image-text networks compare them."""
    seen = nn.functional.normalize(CONV(images).mean((2, 3)), dim=-1)
    return 10 * seen @ nn.functional.normalize(prompts, dim=-1).T


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("internal_batch_size", [1, 2, 3, None])
@pytest.mark.parametrize("n", [1, 2])
def test_as_many_prompts_as_images(method: str, internal_batch_size: int | None, n: int) -> None:
    images, prompts = torch.rand(n, 3, 16, 16), torch.rand(n, 8)
    options = OPTIONS[method] | {"target": n - 1, "internal_batch_size": internal_batch_size}
    explainer = METHODS[method](similarity)
    with pytest.raises(ValueError, match=r"belongs to all samples.*masking\.Shared"):
        explainer.attribute(images, additional_forward_args=prompts, **options)
    maps = explainer.attribute(images, additional_forward_args=Shared(prompts), **options)
    inside = METHODS[method](lambda pixels: similarity(pixels, prompts))
    torch.testing.assert_close(maps, inside.attribute(images, **options))


def test_measures_take_them_too() -> None:
    images, prompts = torch.rand(2, 3, 16, 16), torch.rand(2, 8)
    maps = torch.rand(2, 1, 16, 16)
    found = deletion_insertion(similarity, maps, images, 1, Shared(prompts))
    inside = deletion_insertion(lambda pixels: similarity(pixels, prompts), maps, images, 1)
    torch.testing.assert_close(found, inside)
    with pytest.raises(ValueError, match="belongs to all samples"):
        deletion_insertion(similarity, maps, images, 1, prompts)


def test_a_row_for_each_sample_goes_with_it() -> None:
    def shifted(images: Tensor, shift: Tensor) -> Tensor:
        return CONV(images).mean((2, 3)) + shift

    images, shift = torch.rand(3, 3, 16, 16), torch.rand(3, 8)
    target = int(CONV(images).mean((0, 2, 3)).argmax())  # a channel that is active
    options = {"n_groups": 4, "relu_attributions": False}
    maps = GroupCAM(shifted, CONV).attribute(images, target, shift, **options)
    for n in range(3):
        rows = slice(n, n + 1)
        one = GroupCAM(shifted, CONV).attribute(images[rows], target, shift[rows], **options)
        torch.testing.assert_close(maps[n : n + 1], one)


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("internal_batch_size", [1, 2, None])
def test_an_output_that_is_squeezed(classes: int, n: int, internal_batch_size: int | None) -> None:
    head = nn.Linear(8, classes)

    def squeezed(images: Tensor) -> Tensor:
        return head(CONV(images).mean((2, 3))).squeeze()

    images, target = torch.rand(n, 3, 16, 16), None if classes == 1 else 2
    options = {"n_groups": 4, "internal_batch_size": internal_batch_size}
    maps = GroupCAM(squeezed, CONV).attribute(images, target, **options)
    whole = GroupCAM(lambda images: head(CONV(images).mean((2, 3))), CONV)
    torch.testing.assert_close(maps, whole.attribute(images, target, **options))
