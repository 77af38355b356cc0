from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_groupcam.masking.masks import LayerMasks
from captum_groupcam.masking.network import (
    DEFAULT_BATCH_SIZE,
    Network,
    class_probability,
    in_chunks,
)
from captum_groupcam.masking.queries import blend, merge_masks, score_masks, score_samples
from captum_groupcam.masking.targets import Target

CPU = torch.device("cpu")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.integers(1, 12), st.integers(1, 12))
def test_chunks_cover_everything_once_in_order(total, size, limit):
    """Also where only chunks up to a limit fit in memory."""
    done, failures = [], 0

    def work(chunk):
        nonlocal failures
        if chunk.stop - chunk.start > limit:
            failures += 1
            raise torch.cuda.OutOfMemoryError
        done.append(range(chunk.start, chunk.stop))

    in_chunks(total, size, work)
    assert [i for part in done for i in part] == list(range(total))
    assert all(len(part) <= min(size, limit) for part in done)
    assert failures <= 4  # halved, 12 fits in 1 after four steps, and the size is kept


def test_what_the_failed_chunk_held_is_free_before_the_next():
    alive = []

    class Big:
        def __init__(self):
            alive.append(self)

        def __del__(self):
            freed.append(True)

    freed, sizes = [], []

    def work(chunk):
        sizes.append((chunk.stop - chunk.start, len(freed)))
        held = Big()
        alive.clear()
        if chunk.stop - chunk.start > 1:
            raise torch.cuda.OutOfMemoryError
        del held

    in_chunks(2, 2, work)
    assert sizes == [(2, 0), (1, 1), (1, 2)]


def test_other_errors_are_not_caught():
    with pytest.raises(RuntimeError, match="something else"):
        in_chunks(4, 4, lambda chunk: exec("raise RuntimeError('something else')"))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        in_chunks(4, 4, lambda chunk: exec("raise torch.cuda.OutOfMemoryError", {"torch": torch}))


def test_probability_is_over_the_classes():
    output = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(class_probability(output).sum(1), torch.ones(2, 4, 5))
    for own in (torch.randn(3), torch.randn(3, 1), torch.randn(3, 1, 4)):
        assert torch.equal(class_probability(own), own)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_blend_is_exact_at_both_ends(dtype):
    inputs, baselines = torch.randn(2, 4, 3, 5, 5).to(dtype)
    masks = torch.zeros(4, 1, 5, 5)
    masks[:, :, :2] = 1
    masks[:, :, 2] = 0.25
    seen = blend(inputs, baselines, masks)
    assert seen.dtype == dtype
    assert torch.equal(seen[:, :, :2], inputs[:, :, :2])
    assert torch.equal(seen[:, :, 3:], baselines[:, :, 3:])
    between = 0.25 * inputs[:, :, 2].double() + 0.75 * baselines[:, :, 2].double()
    torch.testing.assert_close(seen[:, :, 2].double(), between, rtol=0, atol=0.02)


def network(target=1, n=3, **options):
    """y = (0, sum of the input, 2 * sum): scores that can be told by hand."""
    sizes = []

    def forward(inputs, *_):
        sizes.append(len(inputs))
        total = inputs.flatten(1).sum(1)
        return torch.stack([0 * total, total, 2 * total], dim=1)

    options = {"score_func": lambda y: y, **options}
    return Network(forward, Target.of(target, n, CPU), (), n, **options), sizes


def test_scores_of_masks_by_hand():
    inputs = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 5.0]]])
    baselines = torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]], [[5.0, 5.0]]])
    masks = LayerMasks(
        torch.tensor([[[0.0, 1.0], [2.0, 0.0]], [[1.0, 1.0], [0.0, 3.0]], [[0.0, 1.0], [1.0, 0.0]]])
    )
    for size in (1, 2, 3, 100):
        asked, sizes = network([1, 2, 1], internal_batch_size=size)
        scores, queried = score_masks(asked, (inputs,), (baselines,), masks)
        # (0 2), (1 1); a flat mask, 2 * (0 4); the input is its own baseline: nothing to ask.
        assert scores.tolist() == [[2, 2], [0, 8], [0, 0]]
        assert queried.tolist() == [[True, True], [False, True], [False, False]]
        # One more, to see whether a row is answered alone as beside others.
        assert sum(sizes) == 3 + (size > 1)
        assert max(sizes) <= size


def test_no_queries_at_all():
    asked, sizes = network()
    inputs = torch.ones(3, 1, 2)
    masks = LayerMasks(torch.zeros(3, 2, 2))
    scores, queried = score_masks(asked, (inputs,), (inputs * 0,), masks)
    assert not scores.any()
    assert not queried.any()
    assert sizes == []


def test_scores_of_samples():
    asked, sizes = network([0, 1, 2], internal_batch_size=2)
    assert score_samples(asked, (torch.ones(3, 1, 2),)).tolist() == [0, 2, 4]
    assert sizes == [2, 1]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_no_numbers_are_an_error(bad):
    asked, _ = network()
    inputs = torch.ones(3, 1, 2)
    inputs[1] = bad
    with pytest.raises(ValueError, match=r"scores contain NaN or infinite values .* \[1\]"):
        score_samples(asked, (inputs,))


def test_scores_of_half_precision_outputs_are_float32():
    """A probability of bfloat16 has two or three digits, too few for differences."""
    asked = Network(lambda x: x.bfloat16(), Target.of(0, 1, CPU), (), 1)
    (score,) = score_samples(asked, (torch.tensor([[0.0, 1.0, 2.0]]),))
    assert score.dtype == torch.float32
    assert score.item() == pytest.approx(1 / (1 + torch.e + torch.e**2), rel=1e-6)


def test_default_batch_size():
    assert network()[0].batch_size(CPU) == DEFAULT_BATCH_SIZE["cpu"]
    assert network()[0].batch_size(torch.device("cuda")) == DEFAULT_BATCH_SIZE.get("cuda", 64)
    assert network(internal_batch_size=3)[0].batch_size(CPU) == 3
    with pytest.raises(ValueError, match="internal_batch_size must be at least 1, got -1"):
        network(internal_batch_size=-1)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 7),
    st.lists(st.integers(2, 5), min_size=1, max_size=3).map(tuple),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 3)),
    st.integers(0, 10_000),
)
def test_merged_masks_are_a_weighted_sum(n, g, batch_size, size, normalized, sums, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = LayerMasks(torch.rand(n, g, *size, generator=generator))
    weights = torch.randn(n, g, *([] if sums is None else [sums]), generator=generator)
    weights[torch.rand(weights.shape, generator=generator) < 0.3] = 0
    target = [2 * s + 1 for s in size]
    merged = merge_masks(masks, weights, target, batch_size=batch_size, normalized=normalized)
    expected = torch.zeros(n, sums or 1, *target)
    for i in range(n):
        for k in range(g):
            mask = masks.render(torch.tensor([i]), torch.tensor([k]), target, normalized=normalized)
            for t, weight in enumerate(weights[i, k].reshape(-1)):
                expected[i, t] += weight * mask[0, 0]
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-5)
