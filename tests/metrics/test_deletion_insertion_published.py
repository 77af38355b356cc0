"""Deletion and insertion against loops from the published descriptions, and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from captum_groupcam.masking.baselines import GaussianBlur, gaussian_blur
from captum_groupcam.metrics.functional import (
    DeletionInsertionProtocol,
    deletion_insertion,
    rise_blur,
)
from tests.metrics.deletion_toys import distinct_maps
from tests.toy_networks import FinishedMaps, SmallCNN, small_inputs


def naive_curve(
    score: nn.Module,
    start: NDArray[np.float64],
    finish: NDArray[np.float64],
    saliency: NDArray[np.float64],
    counts: list[int],
    target: int,
) -> NDArray[np.float64]:
    """One image and one step at a time, as the published evaluations do."""
    image = start.copy().reshape(start.shape[0], -1)
    order = np.argsort(-saliency.ravel())
    values = []
    for low, high in zip([0, *counts[:-1]], counts, strict=True):
        image[:, order[low:high]] = finish.reshape(image.shape)[:, order[low:high]]
        with torch.no_grad():
            logits = score(torch.from_numpy(image.reshape(1, *start.shape)))[0].double().numpy()
        exponentials = np.exp(logits - logits.max())
        values.append(exponentials[target] / exponentials.sum())
    return np.array(values)


@settings(max_examples=15, deadline=None)
@given(
    size=st.lists(st.integers(2, 6), min_size=1, max_size=3),
    step=st.one_of(st.integers(1, 40), st.floats(0.02, 1.0)),
    batch=st.integers(1, 9),
    seed=st.integers(0, 5),
)
def test_equals_a_loop_of_one_step_at_a_time(
    size: list[int], step: float, batch: int, seed: int
) -> None:
    network = SmallCNN(dims=len(size), stride=2)
    inputs = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed)).double()
    maps = distinct_maps(2, *size, seed=seed)
    protocol = DeletionInsertionProtocol(
        step, deletion_baseline=-1.0, insertion_baseline=GaussianBlur(3, 1.0)
    )
    result = deletion_insertion(
        network, maps, inputs, [1, 3], protocol=protocol, internal_batch_size=batch
    )
    n = maps[0].numel()
    counts = [
        min(k * step, n) if isinstance(step, int) else round(k * step * n) for k in range(100)
    ]
    counts = sorted({int(c) for c in counts if c < n} | {n})
    np.testing.assert_allclose(result.fractions.numpy(), np.array(counts) / n)
    blurred = gaussian_blur(inputs, 3, 1.0).numpy()
    for i, target in enumerate([1, 3]):
        image, saliency = inputs[i].numpy(), maps[i].double().numpy()
        gone = np.full_like(image, -1.0)
        deleted = naive_curve(network, image, gone, saliency, counts, target)
        inserted = naive_curve(network, blurred[i], image, saliency, counts, target)
        np.testing.assert_allclose(result.deletion_curve[i], deleted, atol=1e-9)
        np.testing.assert_allclose(result.insertion_curve[i], inserted, atol=1e-9)
        fractions = np.array(counts) / n
        area = ((deleted[1:] + deleted[:-1]) / 2 * np.diff(fractions)).sum()
        assert result.deletion[i].item() == pytest.approx(area)
        area = ((inserted[1:] + inserted[:-1]) / 2 * np.diff(fractions)).sum()
        assert result.insertion[i].item() == pytest.approx(area)
        assert result.over_all[i] == result.insertion[i] - result.deletion[i]


def published_rise_blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    kernel = ndimage.gaussian_filter(impulse, 5)
    return np.stack([ndimage.correlate(c, kernel, mode="constant", cval=0.0) for c in image])


def test_rise_blur_is_the_published_kernel() -> None:
    images = torch.rand(2, 3, 14, 17, dtype=torch.double)
    expected = [published_rise_blur(image.numpy()) for image in images]
    np.testing.assert_allclose(rise_blur(images), np.stack(expected), atol=1e-6)
    assert rise_blur(images.half()).dtype is torch.half


@pytest.mark.parametrize(
    ("name", "pixels", "n_points"), [("rise", 224, 225), ("official", 224 * 8, 29)]
)
def test_published_codes_on_their_image_size(name: str, pixels: int, n_points: int) -> None:
    network = nn.Sequential(nn.AvgPool2d(28), nn.Flatten(), nn.Linear(64, 4)).double().eval()
    nn.init.normal_(network[-1].weight)
    image = small_inputs(1, size=224)[:, :1]
    maps = distinct_maps(1, 224, 224)
    result = deletion_insertion(network, maps, image, 2, protocol=name, internal_batch_size=64)
    # The published loops: a fixed number of pixels at a time, first zeros, then from a blur.
    counts = list(range(0, 224 * 224 + 1, pixels))
    assert len(counts) == n_points == result.deletion_curve.shape[1]
    whole, saliency = image[0].numpy(), maps[0].numpy()
    blurred = {"rise": published_rise_blur, "official": lambda x: gaussian_blur(image)[0].numpy()}
    deleted = naive_curve(network, whole, np.zeros_like(whole), saliency, counts, 2)
    inserted = naive_curve(network, blurred[name](whole), whole, saliency, counts, 2)
    for curve, area in ((deleted, result.deletion), (inserted, result.insertion)):
        # RISE's `auc`
        published = (curve.sum() - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1)
        assert area.item() == pytest.approx(published, abs=1e-6)


def test_paper_preset_blurs_both_ways_in_one_hundred_steps() -> None:
    network = SmallCNN()
    inputs, maps = small_inputs(1, size=20), distinct_maps(1, 20, 20)
    result = deletion_insertion(network, maps, inputs, 1)
    counts = list(range(0, 401, 4))
    image, blurred = inputs[0].numpy(), gaussian_blur(inputs, 51, 50.0)[0].numpy()
    saliency = maps[0].double().numpy()
    deleted = naive_curve(network, image, blurred, saliency, counts, 1)
    inserted = naive_curve(network, blurred, image, saliency, counts, 1)
    np.testing.assert_allclose(result.deletion_curve[0], deleted, atol=1e-9)
    np.testing.assert_allclose(result.insertion_curve[0], inserted, atol=1e-9)


@pytest.mark.parametrize("baseline", [None, 0.5])
def test_equals_torchcam(baseline: float | None) -> None:
    pytest.importorskip("torchcam", minversion="0.5")  # before, its metrics were others
    from torchcam import metrics

    network = SmallCNN()
    inputs, maps = small_inputs(3, size=8), distinct_maps(3, 8, 8).double()

    hidden = None if baseline is None else torch.full((1, 1, 1, 1), baseline)
    reference = metrics.DeletionInsertionMetric(
        FinishedMaps(network, maps), lambda logits: logits.softmax(-1), steps=10, baseline=hidden
    )
    reference.update(inputs, [0, 2, 4])
    protocol = DeletionInsertionProtocol(
        7, baseline or 0.0, baseline or 0.0
    )  # 64 pixels in 10 steps
    ours = deletion_insertion(network, maps, inputs, [0, 2, 4], protocol=protocol)
    summary = reference.summary()
    assert ours.deletion.mean().item() == pytest.approx(summary["deletion_auc"], abs=1e-6)
    assert ours.insertion.mean().item() == pytest.approx(summary["insertion_auc"], abs=1e-6)


def test_deletion_equals_pixel_flipping_of_quantus() -> None:
    quantus = pytest.importorskip("quantus")
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)).eval()
    inputs, maps = torch.rand(2, 1, 6, 6), distinct_maps(2, 6, 6)
    measure = quantus.PixelFlipping(
        features_in_step=4,
        perturb_baseline=0.0,
        abs=False,
        normalise=False,
        disable_warnings=True,
    )
    curves = measure(
        model=network,
        x_batch=inputs.numpy(),
        y_batch=np.array([1, 2]),
        a_batch=maps.numpy(),
        softmax=True,
        device="cpu",
    )
    ours = deletion_insertion(
        network, maps, inputs, [1, 2], protocol=DeletionInsertionProtocol(4, 0.0, 0.0)
    )
    np.testing.assert_allclose(ours.deletion_curve[:, 1:], np.array(curves), atol=1e-5)
