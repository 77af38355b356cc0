"""Deletion and insertion: the closed form, ties, what they ask the network, and errors."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_groupcam.masking.baselines import GaussianBlur
from captum_groupcam.metrics.functional import (
    PRESETS,
    DeletionInsertionProtocol,
    deletion_insertion,
)
from tests.metrics.deletion_toys import ONE_BY_ONE, Linear, distinct_maps
from tests.toy_networks import SmallCNN, small_inputs

# Closed form


@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_linear_network_has_the_area_of_the_closed_form(n: int) -> None:
    # Pixel i of n is worth 2 (n - i) / (n (n + 1)); the map is right.
    weights = torch.arange(n, 0, -1, dtype=torch.double) * 2 / (n * (n + 1))
    result = deletion_insertion(
        Linear(weights), weights.view(1, 1, n), torch.ones(1, 1, n).double(), protocol=ONE_BY_ONE
    )
    left = torch.arange(n, -1, -1, dtype=torch.double)
    torch.testing.assert_close(result.deletion_curve[0], left * (left + 1) / (n * (n + 1)))
    assert result.deletion.item() == pytest.approx((2 * n + 1) / (6 * n))
    assert result.insertion.item() == pytest.approx((4 * n - 1) / (6 * n))
    assert result.over_all.item() == pytest.approx((2 * n - 2) / (6 * n), abs=1e-12)
    torch.testing.assert_close(result.fractions, torch.linspace(0, 1, n + 1).double())


def test_no_random_order_beats_the_true_one() -> None:
    weights = torch.randn(6, 6, dtype=torch.double)
    maps = torch.cat([weights.view(1, 1, 6, 6), distinct_maps(60, 6, 6)])
    images = torch.ones(1, 1, 6, 6).double().expand(61, -1, -1, -1)
    result = deletion_insertion(Linear(weights), maps, images, protocol=ONE_BY_ONE)
    assert (result.deletion[0] < result.deletion[1:]).all()
    assert (result.insertion[0] > result.insertion[1:]).all()


def test_random_maps_score_as_chance_predicts() -> None:
    # Every pixel's place is uniform, so half of the linear score is left on average.
    weights = torch.rand(8, 8, dtype=torch.double) ** 4
    weights /= weights.sum()
    n = 400
    images = torch.ones(1, 1, 8, 8).double().expand(n, -1, -1, -1)
    result = deletion_insertion(
        Linear(weights), torch.rand(n, 1, 8, 8), images, protocol=ONE_BY_ONE
    )
    for values in (result.deletion, result.insertion):
        assert abs(values.mean() - 0.5) < 3 * values.std() / n**0.5
    assert abs(result.over_all.mean()) < 3 * result.over_all.std() / n**0.5


# Ties


def test_ties_are_broken_by_the_seed_alone() -> None:
    maps = torch.zeros(1, 1, 6, 6)
    maps[..., :3] = 1.0
    images = torch.ones(1, 1, 6, 6)
    orders = {}
    for seed in (0, 1):
        network = Linear(torch.ones(6, 6))
        deletion_insertion(network, maps, images, protocol=ONE_BY_ONE, seed=seed)
        steps = torch.cat(network.batches)[:37]
        orders[seed] = [(a - b).flatten().nonzero().item() for a, b in pairwise(steps)]
    assert orders[0] != orders[1]
    for order in orders.values():
        high = [6 * row + column for row in range(6) for column in range(3)]
        assert sorted(order[:18]) == high
        assert order[:18] != high
        assert sorted(order) == list(range(36))


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.integers(-2, 2), min_size=2 * 12, max_size=2 * 12),
    batch=st.integers(1, 50),
    seed=st.integers(0, 3),
)
@pytest.mark.filterwarnings("ignore:The map is constant")
def test_a_batch_equals_its_samples_one_at_a_time(values: list[int], batch: int, seed: int) -> None:
    network = SmallCNN()
    inputs = torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(seed)).double()
    maps = torch.tensor(values).float().view(2, 3, 4)
    protocol = DeletionInsertionProtocol(2, 0.0, GaussianBlur(3, 1.0))
    options = {"protocol": protocol, "seed": seed, "internal_batch_size": batch}
    together = deletion_insertion(network, maps, inputs, [0, 4], **options)
    for i, target in enumerate([0, 4]):
        alone = deletion_insertion(network, maps[i : i + 1], inputs[i : i + 1], target, **options)
        torch.testing.assert_close(alone.deletion_curve[0], together.deletion_curve[i])
        torch.testing.assert_close(alone.insertion_curve[0], together.insertion_curve[i])
    # Only the order of the values counts.
    monotone = deletion_insertion(network, maps.double().exp() * 7, inputs, [0, 4], **options)
    torch.testing.assert_close(monotone.over_all, together.over_all)


def test_constant_maps_warn_and_name_the_sample() -> None:
    maps = torch.rand(3, 1, 4, 4)
    maps[1] = 5.0
    with pytest.warns(UserWarning, match=r"constant in samples \[1\]"):
        result = deletion_insertion(
            Linear(torch.ones(4, 4) / 16), maps, torch.ones(3, 1, 4, 4), protocol=ONE_BY_ONE
        )
    torch.testing.assert_close(result.deletion, torch.full((3,), 0.5))


# Cost, memory, side effects


def test_each_image_is_queried_once_in_bounded_batches() -> None:
    n, size = 3, (5, 4)
    whole = torch.rand(n, 2, *size)
    network = Linear(torch.ones(2, *size))
    protocol = DeletionInsertionProtocol(1, 0.0, 0.0)
    deletion_insertion(
        network, distinct_maps(n, *size), whole, protocol=protocol, internal_batch_size=4
    )
    assert max(map(len, network.batches)) == 4
    seen = torch.cat(network.batches)
    # 21 points each, two end points shared; one of the first is asked alone, too
    assert len(seen) == n * 2 * 20 + 1
    assert len(network.batches[1]) == 1
    for image in whole:
        others = torch.cat([network.batches[0], *network.batches[2:]])
        assert sum(torch.equal(image, other) for other in others) == 1

    network.batches.clear()
    protocol = DeletionInsertionProtocol(1, 0.0, GaussianBlur(3, 1.0))
    deletion_insertion(network, distinct_maps(n, *size), whole, protocol=protocol)
    assert sum(map(len, network.batches)) == n * (2 * 21 - 1) + 1


def test_memory_format_reaches_the_network() -> None:
    images = torch.rand(2, 3, 6, 6).to(memory_format=torch.channels_last)
    network = Linear(torch.ones(3, 6, 6))
    deletion_insertion(network, torch.rand(2, 1, 6, 6), images, internal_batch_size=8)
    assert all(b.is_contiguous(memory_format=torch.channels_last) for b in network.batches)
    network.batches.clear()
    deletion_insertion(network, torch.rand(2, 1, 6, 6), images.contiguous())
    assert all(b.is_contiguous() for b in network.batches)


def test_leaves_no_trace() -> None:
    network = SmallCNN().float()
    inputs = small_inputs(2, size=8).float().requires_grad_()
    maps = torch.rand(2, 1, 8, 8, requires_grad=True)
    before = inputs.detach().clone(), maps.detach().clone(), torch.get_rng_state()
    result = deletion_insertion(network, maps, inputs, 0)
    assert torch.equal(inputs, before[0])
    assert torch.equal(maps, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert not result.over_all.requires_grad
    assert inputs.grad is maps.grad is None
    assert all(p.grad is None for p in network.parameters())


def test_half_precision_maps_and_autocast() -> None:
    network = SmallCNN().float()
    inputs, maps = small_inputs(1, size=8).float(), distinct_maps(1, 8, 8)
    plain = deletion_insertion(network, maps, inputs, 1)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = deletion_insertion(network, maps.half(), inputs, 1)
    assert reduced.over_all.dtype is torch.float32
    torch.testing.assert_close(reduced.over_all, plain.over_all, atol=0.05, rtol=0)


def test_additional_arguments_and_score_func() -> None:
    def forward(inputs: Tensor, scale: Tensor) -> Tensor:
        return torch.stack([inputs.flatten(1).sum(1) * scale, scale], dim=1)

    images, maps = torch.ones(2, 1, 2, 2) / 4, torch.rand(2, 1, 2, 2)
    result = deletion_insertion(
        forward,
        maps,
        images,
        0,
        torch.tensor([1.0, 3.0]),
        protocol=ONE_BY_ONE,
        score_func=lambda x: x,
    )
    torch.testing.assert_close(result.deletion, torch.tensor([0.5, 1.5]))


# Errors


def test_errors_name_what_is_wrong() -> None:
    network = SmallCNN().float()
    images, maps = small_inputs(3, size=6).float(), torch.rand(3, 1, 6, 6)
    for value in (float("nan"), float("inf")):
        broken = maps.clone()
        broken[2, 0, 1, 1] = value
        with pytest.raises(ValueError, match=r"map contains NaN or infinite.*\[2\]"):
            deletion_insertion(network, broken, images, 0)
    with pytest.raises(ValueError, match=r"spatial size \(6, 6\) for each of 3 inputs"):
        deletion_insertion(network, maps[..., :5], images, 0)
    with pytest.raises(ValueError, match="for each of 3 inputs"):
        deletion_insertion(network, maps[:2], images, 0)
    with pytest.raises(ValueError, match="several channels"):
        deletion_insertion(network, images, images, 0)
    with pytest.raises(ValueError, match="target 5 is out of range"):
        deletion_insertion(network, maps, images, 5)
    with pytest.raises(ValueError, match=r"unknown.*official.*paper.*rise|Unknown"):
        deletion_insertion(network, maps, images, 0, protocol="unknown")
    with pytest.raises(TypeError, match="maps must be a tensor"):
        deletion_insertion(network, maps.numpy(), images, 0)
    with pytest.raises(TypeError, match="the one tensor"):
        deletion_insertion(network, maps, (images, images), 0)
    with pytest.raises(ValueError, match=r"scores for samples \[1\]"):
        deletion_insertion(
            lambda x: x.flatten(1).sum(1) / torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(37),
            maps,
            torch.ones(3, 1, 6, 6),
            protocol=ONE_BY_ONE,
            internal_batch_size=111,
        )


@pytest.mark.parametrize("step", [0, -1, 0.0, 1.5, True])
def test_step_must_be_a_share_or_a_number(step: float) -> None:
    with pytest.raises(ValueError, match="step is a share"):
        DeletionInsertionProtocol(step)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 400), step=st.one_of(st.integers(1, 500), st.floats(1e-3, 1), st.just(1 / 28))
)
def test_counts_rise_from_nothing_to_everything(n: int, step: float) -> None:
    counts = DeletionInsertionProtocol(step).counts(n)
    assert counts[0] == 0
    assert counts[-1] == n
    gaps = np.diff(counts)
    assert (gaps >= 1).all()
    assert (gaps <= (step if isinstance(step, int) else step * n + 1)).all()


def test_shares_take_as_many_steps_at_any_size() -> None:
    for size in (56 * 56, 224 * 224, 299 * 299):
        steps = {name: len(protocol.counts(size)) - 1 for name, protocol in PRESETS.items()}
        assert steps == {"paper": 100, "rise": 224, "official": 28}


def test_a_step_of_less_than_a_pixel_takes_one_at_a_time() -> None:
    assert DeletionInsertionProtocol(step=1e-12).counts(50_176) == [*range(50_177)]
