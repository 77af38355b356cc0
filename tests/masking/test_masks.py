from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from captum_groupcam.masking.masks import LayerMasks, denoise, normalize, upsample

sizes = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)
seeds = st.integers(0, 10_000)


def maps_of(seed, *shape, ties=True):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(shape, generator=generator)
    return (maps * 5).floor() if ties else maps


@settings(max_examples=50, deadline=None)
@given(sizes, st.floats(0, 100, exclude_max=True), st.booleans(), seeds)
def test_denoise_keeps_what_exceeds_the_percentile_of_numpy(size, percentile, ties, seed):
    maps = maps_of(seed, 2, 3, *size, ties=ties).double()
    actual = denoise(maps, percentile)
    for n in range(2):
        for g in range(3):
            one = maps[n, g].numpy()
            expected = np.where(one > np.percentile(one, percentile), one, 0)
            np.testing.assert_array_equal(actual[n, g].numpy(), expected)


def test_denoise_by_hand():
    maps = torch.tensor([[[5.0, 1.0, 3.0, 2.0, 4.0], [7.0, 7.0, 7.0, 7.0, 7.0]]])
    assert denoise(maps, 70.0).tolist() == [[[5, 0, 0, 0, 4], [0, 0, 0, 0, 0]]]  # above 3.8
    assert denoise(maps, 50.0).tolist() == [[[5, 0, 0, 0, 4], [0, 0, 0, 0, 0]]]  # above 3, not 3
    assert denoise(maps, 0.0).tolist() == [[[5, 0, 3, 2, 4], [0, 0, 0, 0, 0]]]  # above 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_denoise_keeps_the_type_and_what_it_got(dtype):
    maps = torch.rand(1, 2, 3, 3, dtype=dtype)
    before = maps.clone()
    assert denoise(maps, 70).dtype == dtype
    assert torch.equal(maps, before)


@pytest.mark.parametrize("percentile", [-0.1, 100, 101, float("nan")])
def test_denoise_refuses_what_is_no_percentile(percentile):
    with pytest.raises(ValueError, match=r"denoise_percentile must be in \[0, 100\), got"):
        denoise(torch.rand(1, 1, 3), percentile)


def test_upsample_by_hand():
    assert upsample(torch.tensor([[[0.0, 4.0]]]), (4,)).tolist() == [[[0, 1, 3, 4]]]
    actual = upsample(torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]]), (4, 4))
    row, column = torch.tensor([0.0, 1, 3, 4]), torch.tensor([0.0, 2, 6, 8])
    assert torch.equal(actual[0, 0], row + column[:, None])
    assert upsample(torch.full((1, 1, 1, 1, 1), 3.0), (2, 3, 4)).eq(3).all()


@settings(max_examples=20, deadline=None)
@given(sizes, st.integers(1, 3), seeds)
def test_upsample_interpolates_linearly_along_every_axis(size, factor, seed):
    maps = maps_of(seed, 1, 2, *size, ties=False).double()
    target = [s * factor for s in size]
    # Half-pixel centres, the border repeated: SciPy's grid mode.
    for g in range(2):
        expected = ndimage.zoom(maps[0, g], factor, order=1, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(upsample(maps, target)[0, g].numpy(), expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(sizes, seeds)
def test_normalize_fills_zero_to_one_or_is_zero(size, seed):
    maps = maps_of(seed, 2, 3, *size) - 2
    normalized = normalize(maps).flatten(2)
    flat = maps.flatten(2)
    is_flat = flat.amax(-1) == flat.amin(-1)
    assert torch.equal(normalized.amin(-1), torch.zeros(2, 3))
    assert torch.equal(normalized.amax(-1), (~is_flat).float())
    low, high = flat.amin(-1, keepdim=True), flat.amax(-1, keepdim=True)
    torch.testing.assert_close(normalized * (high - low) + low, flat)


def test_normalize_of_differences_beyond_rounding():
    tiny = torch.tensor([[[0.0, 1e-42]]])  # below the smallest normal number
    assert normalize(tiny).tolist() == [[[0, 1]]]


@pytest.mark.parametrize("percentile", [None, 60.0])
def test_layer_masks_render_a_slice(percentile):
    maps = maps_of(1, 3, 4, 3, 5, ties=False)
    masks = LayerMasks(maps, percentile)
    samples, which = torch.tensor([2, 0, 2, 1]), torch.tensor([3, 0, 3, 2])
    for normalized in (True, False):
        rendered = masks.render(samples, which, (9, 11), normalized=normalized)
        assert rendered.shape == (4, 1, 9, 11)
        for query, (n, g) in enumerate(zip(samples, which, strict=True)):
            expected = upsample(maps[n : n + 1, g : g + 1], (9, 11))
            expected = expected if percentile is None else denoise(expected, percentile)
            expected = normalize(expected) if normalized else expected
            assert torch.equal(rendered[query : query + 1], expected)


def test_flat_maps_are_not_informative():
    maps = torch.tensor([[[1.0, 1.0], [0.0, 0.0], [0.0, 1e-30]], [[2.0, 3.0], [5.0, 5.0], [1, 0]]])
    assert LayerMasks(maps).informative.tolist() == [[False, False, True], [True, False, True]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_plateau_at_the_percentile_is_dropped_whole(dtype: torch.dtype) -> None:
    above = torch.nextafter(torch.tensor(0.5, dtype=dtype), torch.tensor(1.0, dtype=dtype))
    maps = torch.tensor([[[0.1, 0.2, 0.5, 0.5, 0.5, 0.5, 0.8, 1.0]]], dtype=dtype)
    maps[..., 4:6] = above  # what rounding makes of the same value
    expected = torch.tensor([[[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.8, 1.0]]], dtype=dtype)
    assert torch.equal(denoise(maps, 40.0), expected)
