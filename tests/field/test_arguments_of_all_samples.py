"""Additional arguments that belong to all samples, and happen to have as many rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import RISE, AblationCAM, GradCAM, GroupCAM, ScoreCAM
from captum_groupcam.masking import Shared
from captum_groupcam.metrics.functional import deletion_insertion
from tests.toy_networks import classifier, seeded

CONV = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Softplus()))
METHODS = {
    "GroupCAM": lambda forward: GroupCAM(forward, CONV),
    "ScoreCAM": lambda forward: ScoreCAM(forward, CONV),
    "RISE": lambda forward: RISE(forward),
}
OPTIONS = {
    "GroupCAM": {"n_groups": 4, "relu_attributions": False},
    "ScoreCAM": {},
    "RISE": {"n_masks": 9},
}


def similarity(images: Tensor, prompts: Tensor) -> Tensor:
    """Images x prompts, as image-text networks compare them."""
    seen = nn.functional.normalize(CONV(images).mean((2, 3)), dim=-1)
    return 10 * seen @ nn.functional.normalize(prompts, dim=-1).T


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("internal_batch_size", [1, 2, 3, None])
def test_as_many_prompts_as_images(method: str, internal_batch_size: int | None) -> None:
    images, prompts = torch.rand(2, 3, 16, 16), torch.rand(2, 8)
    options = OPTIONS[method] | {"target": 1, "internal_batch_size": internal_batch_size}
    explainer = METHODS[method](similarity)
    with pytest.raises(ValueError, match=r"belongs to all samples.*masking\.Shared"):
        explainer.attribute(images, additional_forward_args=prompts, **options)
    maps = explainer.attribute(images, additional_forward_args=Shared(prompts), **options)
    inside = METHODS[method](lambda pixels: similarity(pixels, prompts))
    torch.testing.assert_close(maps, inside.attribute(images, **options))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("internal_batch_size", [1, 2, 3, None])
def test_one_prompt_for_one_image_needs_no_word(
    method: str, internal_batch_size: int | None
) -> None:
    image, prompt = torch.rand(1, 3, 16, 16), torch.rand(1, 8)
    options = OPTIONS[method] | {"target": 0, "internal_batch_size": internal_batch_size}
    maps = METHODS[method](similarity).attribute(image, additional_forward_args=prompt, **options)
    inside = METHODS[method](lambda pixels: similarity(pixels, prompt))
    torch.testing.assert_close(maps, inside.attribute(image, **options))


def attending(images: Tensor, bank: Tensor) -> Tensor:
    """Images read from a memory; the output has one shape, whatever the bank has."""
    seen = CONV(images).mean((2, 3))
    return seen + 5 * (4 * seen @ bank.T).softmax(1) @ bank


def centred(images: Tensor, bank: Tensor) -> Tensor:
    return CONV(images).mean((2, 3)) - bank.mean(0)


def counted(images: Tensor, bank: Tensor) -> Tensor:
    return CONV(images).mean((2, 3)) * bank.sum(0)


READERS = {"attention": attending, "mean": centred, "sum": counted}
EVERY_KIND = {
    **METHODS,
    "GradCAM": lambda forward: GradCAM(forward, CONV),
    "AblationCAM": lambda forward: AblationCAM(forward, CONV),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("method", EVERY_KIND)
@pytest.mark.parametrize("n", [2, 3])
def test_a_bank_whose_values_matter(reader: str, method: str, n: int) -> None:
    images, bank = torch.rand(n, 3, 16, 16), torch.randn(n, 8)
    options = OPTIONS.get(method, {}) | {"target": 1}
    explainer = EVERY_KIND[method](READERS[reader])
    shape = rf"additional_forward_args\[0\], \({n}, 8\), has as many rows"
    with pytest.raises(ValueError, match=rf"{shape}.*belongs to all samples.*masking\.Shared"):
        explainer.attribute(images, additional_forward_args=bank, **options)
    shared = {"additional_forward_args": Shared(bank), **options}
    inside = EVERY_KIND[method](lambda pixels: READERS[reader](pixels, bank))
    torch.testing.assert_close(
        explainer.attribute(images, **shared), inside.attribute(images, **options)
    )


def test_rows_that_differ_late_are_looked_at() -> None:
    images, bank = torch.rand(4, 3, 16, 16), torch.ones(4, 8)
    bank[3] = 2
    with pytest.raises(ValueError, match="belongs to all samples"):
        GradCAM(centred, CONV).attribute(images, 1, bank)


def test_the_argument_that_is_shared_is_named() -> None:
    def both(images: Tensor, shift: Tensor, bank: Tensor) -> Tensor:
        return centred(images, bank) + shift

    images, shift, bank = torch.rand(3, 3, 16, 16), torch.rand(3, 8), torch.rand(3, 8)
    with pytest.raises(ValueError, match=r"^additional_forward_args\[1\], \(3, 8\), has"):
        GroupCAM(both, CONV).attribute(images, 1, (shift, bank))
    options = {"n_groups": 4, "relu_attributions": False}
    maps = GroupCAM(both, CONV).attribute(images, 1, (shift, Shared(bank)), **options)
    for n in range(3):
        rows = slice(n, n + 1)
        one = GroupCAM(lambda x, s: both(x, s, bank), CONV)
        expected = one.attribute(images[rows], 1, shift[rows], **options)
        torch.testing.assert_close(maps[rows], expected)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_part_of_the_samples_deals_out_nothing_else(n: int) -> None:
    """As many prompts as samples in one pass, whatever the samples are in all."""
    images, prompts = torch.rand(5, 3, 16, 16), torch.rand(n, 8)
    for argument in (prompts, Shared(prompts)):
        found = AblationCAM(similarity, CONV).attribute(
            images, n - 1, argument, internal_batch_size=n
        )
        inside = AblationCAM(lambda pixels: similarity(pixels, prompts), CONV)
        torch.testing.assert_close(found, inside.attribute(images, n - 1))


def test_networks_that_fail_fail_as_they_do() -> None:
    def failing(images: Tensor, shift: Tensor) -> Tensor:
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        GroupCAM(failing, CONV).attribute(torch.rand(2, 3, 16, 16), 1, torch.rand(2, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_is_no_alarm(dtype: torch.dtype) -> None:
    """A row alone is rounded otherwise than beside others, and outputs may lie near zero."""
    network = classifier(classes=400, seed=3).to(dtype)

    def shifted(images: Tensor, shift: Tensor) -> Tensor:
        return network(images) + shift

    images, shift = torch.rand(3, 3, 16, 16).to(dtype), torch.rand(3, 400).to(dtype)
    GradCAM(shifted, network.features).attribute(images, 1, shift)
    with torch.autocast("cpu", torch.bfloat16):
        GradCAM(shifted, network.features).attribute(images, 1, shift)


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
