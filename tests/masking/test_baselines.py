from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from captum_groupcam.masking.baselines import GaussianBlur, gaussian_blur, resolve_baselines


def reference(inputs, kernel_size, sigma):
    """One channel and axis after the other, with SciPy."""
    result = inputs.numpy().astype(np.float64)
    for axis in range(2, inputs.dim()):
        radius = min(kernel_size // 2, inputs.shape[axis] - 1)
        kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        result = ndimage.correlate1d(result, kernel / kernel.sum(), axis, mode="mirror")
    return result


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(0, 12).map(lambda r: 2 * r + 1),
    st.floats(0.3, 60),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_blur_is_a_correlation_with_a_gaussian(size, kernel_size, sigma, dtype):
    inputs = torch.rand(2, 3, *size, dtype=dtype)
    blurred = gaussian_blur(inputs, kernel_size, sigma)
    assert blurred.dtype == dtype
    np.testing.assert_allclose(
        blurred.numpy(), reference(inputs, kernel_size, sigma), rtol=0, atol=2e-6
    )


def test_blur_of_the_paper_is_that_of_torchvision():
    images = torch.randn(2, 3, 32, 40)
    torch.testing.assert_close(gaussian_blur(images), TF.gaussian_blur(images, 51, 50.0))
    torch.testing.assert_close(GaussianBlur()(images), TF.gaussian_blur(images, 51, 50.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_blur_of_half_precision(dtype):
    images = torch.rand(1, 3, 20, 20)
    blurred = gaussian_blur(images.to(dtype))
    assert blurred.dtype == dtype
    torch.testing.assert_close(blurred.float(), gaussian_blur(images), rtol=0, atol=0.02)


def test_many_images_are_blurred_as_each_alone():
    images = torch.rand(19, 2, 6, 7)
    alone = torch.cat([gaussian_blur(image.unsqueeze(0), 5, 2.0) for image in images])
    torch.testing.assert_close(gaussian_blur(images, 5, 2.0), alone)


def test_blur_under_autocast_is_exact():
    images = torch.rand(1, 3, 20, 20)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gaussian_blur(images), gaussian_blur(images.clone()))
        inside = gaussian_blur(images)
    assert torch.equal(inside, gaussian_blur(images))


@pytest.mark.parametrize("value", [0.1, -2.117904, 1e3, 1 / 3])
def test_constant_channels_stay_exactly_what_they_are(value):
    images = torch.full((2, 3, 17, 23), value)
    assert torch.equal(gaussian_blur(images), images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.rand(1, 1, 5), 4), "kernel_size must be odd and positive, got 4"),
        ((torch.rand(1, 1, 5), -3), "kernel_size must be odd and positive, got -3"),
        ((torch.rand(1, 1, 5), 3, 0.0), "sigma must be positive, got 0.0"),
        ((torch.rand(1, 1, 5), 3, float("nan")), "sigma must be positive, got nan"),
        ((torch.rand(1, 5),), r"N x C x spatial .* got \(1, 5\)"),
        ((torch.rand(1, 1, 2, 2, 2, 2),), "one to three spatial dimensions"),
    ],
)
def test_bad_blur(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_blur(*arguments)


def test_each_input_gets_its_baseline():
    inputs = (torch.rand(2, 3, 4), torch.rand(2, 1, 5, 6, dtype=torch.float64))
    whole, function = resolve_baselines((1, lambda x: x + 1), inputs)
    assert torch.equal(whole, torch.ones(2, 3, 4))
    assert torch.equal(function, inputs[1] + 1)
    blurred = resolve_baselines(None, inputs)
    for baseline, tensor in zip(blurred, inputs, strict=True):
        assert torch.equal(baseline, gaussian_blur(tensor))
    assert [b.dtype for b in resolve_baselines(0.5, inputs)] == [torch.float32, torch.float64]


def test_one_baseline_for_all_samples_needs_no_memory():
    inputs = torch.rand(4, 3, 8, 8)
    for baseline in (0.5, torch.rand(1, 3, 8, 8)):
        (resolved,) = resolve_baselines(baseline, (inputs,))
        assert resolved.shape == inputs.shape
        assert resolved.untyped_storage().nbytes() <= inputs[:1].nbytes


def test_baseline_has_no_graph_and_the_type_of_its_input():
    given_ = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    (baseline,) = resolve_baselines(given_, (torch.rand(2, 3, 4),))
    assert not baseline.requires_grad
    assert baseline.dtype == torch.float32


@pytest.mark.parametrize(
    ("baselines", "error", "message"),
    [
        ((0.0, 0.0), ValueError, "one for each of the 1 inputs, got 2"),
        (torch.zeros(2, 3, 5), ValueError, r"shape \(2, 3, 4\), or with batch size 1, got \(2, 3,"),
        (torch.zeros(3, 3, 4), ValueError, r"got \(3, 3, 4\)"),
        (lambda x: x[:, :1], ValueError, r"got \(2, 1, 4\)"),
        (lambda x: "blur", TypeError, "got str"),
        ([0.0], TypeError, "got list"),
        (float("inf"), ValueError, "NaN or infinite"),
    ],
)
def test_bad_baseline(baselines, error, message):
    with pytest.raises(error, match=message):
        resolve_baselines(baselines, (torch.rand(2, 3, 4),))
