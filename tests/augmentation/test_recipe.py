"""The recipe against a loop written from the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate1d
from torch import Tensor, nn

from benchmarks.controls import ShiftedBlur, shift
from captum_groupcam.augmentation import GradCAMBlur, GroupCAMBlur, above_mean, blur_background
from tests.augmentation.small_network import BLURS, LABELS, SIZE, Network, batch


def naive(network: Network, image: np.ndarray, label: int, n_groups: int) -> np.ndarray:
    """One image (3 x H x W): section 5 of the paper, step by step."""

    def probability(seen: np.ndarray) -> float:
        with torch.no_grad():
            return float(network(torch.from_numpy(seen).float()[None]).softmax(1)[0, label])

    radius = SIZE - 1  # 51 pixels are more than the mirrored border gives
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / 50) ** 2)
    blurred = image
    for axis in (1, 2):
        blurred = correlate1d(blurred, kernel / kernel.sum(), axis=axis, mode="mirror")
    with torch.no_grad():
        activations = network.features(torch.from_numpy(image).float()[None])
    saliency = np.zeros((SIZE, SIZE))
    for group in np.array_split(activations[0].numpy(), n_groups):
        summed = torch.from_numpy(np.maximum(group.sum(0), 0))[None, None]
        mask = F.interpolate(summed, (SIZE, SIZE), mode="bilinear")[0, 0].double().numpy()
        if mask.max() == mask.min():
            continue
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        weight = probability(image * mask + blurred * (1 - mask)) - probability(blurred)
        saliency += weight * mask
    saliency = np.maximum(saliency, 0)
    kept = saliency >= saliency.mean()
    return np.where(kept, image, blurred)


@pytest.mark.parametrize("n_groups", [1, 3, 8])
def test_recipe_is_the_papers(network: Network, n_groups: int) -> None:
    inputs = batch()
    altered = GroupCAMBlur(network, network.features, n_groups)(inputs, LABELS)
    network.eval()
    for image, label, result in zip(inputs, LABELS, altered, strict=True):
        expected = naive(network, image.double().numpy(), int(label), n_groups)
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-4)
    kept = (altered == inputs).float().mean((1, 2, 3))
    assert ((kept > 0) & (kept < 1)).any()  # a group that lowers the score leaves no map


def test_grad_cam_masks_are_above_the_mean_of_its_map(network: Network) -> None:
    inputs = batch()
    altered = GradCAMBlur(network, network.features)(inputs, LABELS)
    network.eval()
    activations = network.features(inputs).detach().requires_grad_()
    chosen = network.head(activations).gather(1, LABELS[:, None]).sum()
    (gradients,) = torch.autograd.grad(chosen, activations)
    maps = (gradients.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True).relu()
    maps = F.interpolate(maps, (SIZE, SIZE), mode="bilinear")
    kept = maps >= maps.mean((1, 2, 3), keepdim=True)
    assert torch.equal((altered == inputs).all(1, keepdim=True), kept)


def test_shifted_masks_are_group_cams_elsewhere(network: Network) -> None:
    inputs = batch()
    kept, moved = (
        (blur(network, network.features)(inputs, LABELS) == inputs).all(1)
        for blur in (GroupCAMBlur, ShiftedBlur)
    )
    assert torch.equal(kept.sum((1, 2)), moved.sum((1, 2)))
    assert not torch.equal(kept, moved)
    for before, after in zip(kept, moved, strict=True):
        rolled = (before.roll((y, x), (0, 1)) for y in range(SIZE) for x in range(SIZE))
        assert any(torch.equal(after, candidate) for candidate in rolled)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_shift_is_a_roll_of_each_mask(data: st.DataObject) -> None:
    size = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    offsets = data.draw(
        st.lists(st.lists(st.integers(0, 7), min_size=len(size), max_size=len(size)), min_size=1)
    )
    masks = torch.rand(len(offsets), 1, *size) > 0.5
    for mask, offset, shifted in zip(
        masks, offsets, shift(masks, torch.tensor(offsets)), strict=True
    ):
        assert torch.equal(shifted, mask.roll(offset, tuple(range(1, len(size) + 1))))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1e3, width=32), min_size=6, max_size=6), st.floats(0, 10, width=32))
def test_above_mean_of_each_map_alone(values: list[float], constant: float) -> None:
    maps = torch.tensor([values, [constant] * 6]).view(2, 1, 2, 3)
    first, second = above_mean(maps)
    exact = np.array(values, dtype=np.float64)
    clear = np.abs(exact - exact.mean()) > 1e-4 * (1 + exact.mean())
    np.testing.assert_array_equal(first.flatten()[clear], (exact >= exact.mean())[clear])
    assert second.all()


def test_flat_map_leaves_the_image_as_it_is(network: Network) -> None:
    inputs = batch()
    inputs[1] = 0.5  # equal to its blurred self: no mask has anything to hide
    altered = GroupCAMBlur(network, network.features)(inputs, LABELS)
    assert torch.equal(altered[1], inputs[1])
    assert not torch.equal(altered[0], inputs[0])
    nn.init.zeros_(network.features[3].weight)
    nn.init.constant_(network.features[3].bias, -1)
    for blur in BLURS:
        assert torch.equal(blur(network, network.features)(inputs, LABELS), inputs)


def test_baseline_is_the_users(network: Network) -> None:
    inputs = batch()
    altered = GroupCAMBlur(network, network.features, baseline=7.0)(inputs, LABELS)
    kept = altered == inputs
    assert (altered[~kept] == 7).all()
    assert kept.any()
    with pytest.raises(ValueError, match="Expected a baseline of shape"):
        blur_background(inputs, kept[:, :1], torch.zeros(1, 3, 2, 2))


def test_a_batch_is_its_images_one_at_a_time(network: Network) -> None:
    inputs = batch()
    whole = GroupCAMBlur(network, network.features, internal_batch_size=3)(inputs, LABELS)
    for index in range(4):
        one = slice(index, index + 1)
        alone = GroupCAMBlur(network, network.features)(inputs[one], LABELS[one])
        torch.testing.assert_close(whole[one], alone)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.full((2, 1, 4, 4), 1.5), r"values in \[0, 1\]"),
        (torch.full((2, 1, 4, 4), torch.nan), r"values in \[0, 1\]"),
        (torch.ones(1, 1, 4, 4), r"masks of shape \(2, 1, 4, 4\), got \(1, 1, 4, 4\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blur_background(torch.rand(2, 3, 4, 4), masks)
