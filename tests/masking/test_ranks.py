from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_groupcam.masking.ranks import pixel_ranks


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.integers(-2, 2), min_size=24, max_size=24),
    shape=st.sampled_from([(2, 3, 4), (1, 2, 12), (2, 2, 2, 3), (1, 1, 2, 3, 4)]),
)
def test_equals_python_s_stable_sort(values: list[int], shape: tuple[int, ...]) -> None:
    maps = torch.tensor(values).view(shape)
    ranks = pixel_ranks(maps)
    assert ranks.shape == maps.shape
    for flat, found in zip(
        maps.flatten(2).view(-1, maps[0, 0].numel()).tolist(),
        ranks.flatten(2).view(-1, maps[0, 0].numel()).tolist(),
        strict=True,
    ):
        order = sorted(range(len(flat)), key=lambda pixel: -flat[pixel])
        assert [found[pixel] for pixel in order] == list(range(len(flat)))


def test_the_seed_orders_equal_values_alone_and_all_maps_alike() -> None:
    maps = torch.zeros(2, 3, 6, 6)
    maps[..., :3] = 1.0
    first, again, other = (pixel_ranks(maps, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first == first[0, 0]).all()
    for ranks in (first, other):
        assert sorted(ranks[0, 0, :, :3].flatten().tolist()) == list(range(18))
    distinct = torch.rand(1, 2, 40)
    assert torch.equal(pixel_ranks(distinct, 5), pixel_ranks(distinct))


def test_the_order_of_ties_is_every_one_as_often() -> None:
    firsts = [pixel_ranks(torch.zeros(1, 1, 4), seed).argmin().item() for seed in range(400)]
    counts = np.bincount(firsts, minlength=4)
    assert counts.sum() == 400
    assert counts == pytest.approx(100, abs=40)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    pixel_ranks(torch.zeros(1, 1, 4), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_for_each_sample() -> None:
    maps = torch.zeros(2, 1, 3, 4)
    each = pixel_ranks(maps, [3, 5])
    assert torch.equal(each[:1], pixel_ranks(maps[:1], 3))
    assert torch.equal(each[1:], pixel_ranks(maps[1:], 5))
    with pytest.raises(ValueError, match="a seed for each of 2 samples, got 3"):
        pixel_ranks(maps, [1, 2, 3])
    with pytest.raises(TypeError, match="seed"):
        pixel_ranks(maps, "a")  # type: ignore[arg-type]
