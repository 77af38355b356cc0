from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_groupcam.masking.groups import GROUPINGS, group_maps, split_channels

seeds = st.integers(0, 10_000)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 50))
def test_contiguous_groups_are_those_of_numpy(channels, n_groups):
    groups = split_channels(torch.zeros(2, channels, 3), n_groups)
    assert groups.shape == (2, channels)
    expected = np.array_split(np.arange(channels), min(n_groups, channels))
    for row in groups:
        assert [row.eq(g).nonzero().flatten().tolist() for g in range(len(expected))] == [
            part.tolist() for part in expected
        ]


@pytest.mark.parametrize("grouping", ["k_means", "agglomerative"])
def test_clusters_are_channels_that_look_alike(grouping):
    torch.manual_seed(1)
    places = torch.eye(3).repeat_interleave(4, 1)  # three patterns over twelve positions
    of_channel = torch.tensor([[0, 1, 2, 0, 1, 2, 2], [2, 2, 0, 1, 0, 0, 1]])
    activations = (10 * places[of_channel] + 0.1 * torch.rand(2, 7, 12)).unflatten(2, (3, 4))
    groups = split_channels(activations, 3, grouping)
    assert groups.dtype == torch.long
    for found, expected in zip(groups, of_channel, strict=True):
        same = found[:, None] == found
        assert torch.equal(same, expected[:, None] == expected)


@pytest.mark.parametrize("grouping", ["k_means", "agglomerative"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_clustering_of_channels_that_cannot_be_told_apart(grouping, channels):
    activations = torch.ones(2, channels, 3, 3)
    assert torch.equal(split_channels(activations, 4, grouping), torch.zeros(2, channels).long())


@pytest.mark.parametrize("grouping", list(GROUPINGS))
@pytest.mark.parametrize("n_groups", [1, 3, 6, 9])
def test_every_grouping_stays_below_the_number_of_groups(grouping, n_groups):
    activations = torch.rand(2, 6, 4, 4)
    groups = split_channels(activations, n_groups, grouping)
    assert groups.shape == (2, 6)
    for row in groups:
        assert row.unique().tolist() == list(range(min(n_groups, 6)))
    assert torch.equal(groups, split_channels(activations, n_groups, grouping))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64])
def test_own_grouping_of_any_integer_type(dtype):
    groups = split_channels(
        torch.zeros(1, 4, 2), 2, lambda a, g: torch.tensor([[0, 1, 1, 0]], dtype=dtype)
    )
    assert groups.dtype == torch.long
    assert groups.tolist() == [[0, 1, 1, 0]]


def test_own_grouping_gets_the_capped_number():
    seen = []

    def grouping(activations, n_groups):
        seen.append(n_groups)
        return torch.zeros(activations.shape[:2], dtype=torch.long)

    split_channels(torch.zeros(2, 5, 3), 99, grouping)
    assert seen == [5]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 12),
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.sampled_from([torch.float32, torch.float64]),
    seeds,
)
def test_maps_are_sums_over_channels(samples, channels, n_groups, size, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(samples, channels, *size, generator=generator).to(dtype)
    weights = torch.randn(samples, channels, generator=generator).to(dtype)
    n_groups = min(n_groups, channels)
    groups = torch.randint(n_groups, (samples, channels), generator=generator)
    maps = group_maps(activations, weights, groups, n_groups)
    assert maps.dtype == dtype
    assert maps.shape == (samples, n_groups, *size)
    expected = np.zeros(maps.shape)
    for n in range(samples):
        for k in range(channels):
            expected[n, groups[n, k]] += (weights[n, k] * activations[n, k]).numpy()
    atol = 1e-4 if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(maps.numpy(), np.maximum(expected, 0), rtol=0, atol=atol)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 20), st.integers(1, 4), seeds)
def test_constant_channels_give_maps_that_are_flat_to_the_last_bit(channels, h, w, groups, seed):
    """Rounding that differs between positions would be stretched to a mask from 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    activations = torch.rand(2, channels, 1, 1, generator=generator).expand(-1, -1, h, w)
    weights = torch.randn(2, channels, generator=generator)
    maps = group_maps(
        activations.contiguous(), weights, split_channels(activations, groups), groups
    ).flatten(2)
    assert torch.equal(maps.amin(-1), maps.amax(-1))


def test_maps_under_autocast_are_exact():
    activations, weights = torch.rand(2, 6, 4, 4), torch.randn(2, 6)
    groups = split_channels(activations, 3)
    expected = group_maps(activations, weights, groups, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(group_maps(activations, weights, groups, 3), expected)


def test_samples_are_summed_in_chunks_of_bounded_memory(monkeypatch):
    activations, weights = torch.randn(5, 6, 4), torch.randn(5, 6)
    groups = torch.randint(3, (5, 6))
    whole = group_maps(activations, weights, groups, 3)
    monkeypatch.setattr("captum_groupcam.masking.groups._MEMBERSHIPS", 2 * 3 * 6 + 1)
    assert torch.equal(group_maps(activations, weights, groups, 3), whole)
