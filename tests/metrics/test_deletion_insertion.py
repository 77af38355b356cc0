from __future__ import annotations

import pickle
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from captum_groupcam.masking.baselines import GaussianBlur, gaussian_blur
from captum_groupcam.metrics import DeletionInsertion
from captum_groupcam.metrics.functional import (
    PRESETS,
    DeletionInsertionProtocol,
    deletion_insertion,
    rise_blur,
)
from tests.toy_networks import FinishedMaps, SmallCNN, small_inputs

ONE_BY_ONE = DeletionInsertionProtocol(step=1, deletion_baseline=0.0, insertion_baseline=0.0)


class Linear:
    """Scores an image by its weighted sum; records the batches that it is asked about."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.batches: list[Tensor] = []

    def __call__(self, inputs: Tensor) -> Tensor:
        self.batches.append(inputs)
        return (inputs * self.weights).flatten(1).sum(1)


def distinct_maps(samples: int, *size: int, seed: int = 0) -> Tensor:
    """Maps without ties, of both signs."""
    generator = torch.Generator().manual_seed(seed)
    n = int(np.prod(size))
    order = torch.stack([torch.randperm(n, generator=generator) for _ in range(samples)])
    return (order / n - 0.4).view(samples, 1, *size)


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


# Loops from the published descriptions


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


# The metric


def filled(network: nn.Module, samples: slice = slice(None), **options: object) -> SimpleNamespace:
    inputs, maps = small_inputs(4, size=8), distinct_maps(4, 8, 8)
    metric = DeletionInsertion(network, "official", **options)
    targets, ids = torch.tensor([0, 1, 2, 3]), torch.tensor([10, 11, 12, 13])
    arguments = [t[samples] for t in (maps, inputs, targets)]
    metric.update(*arguments, ids=ids[samples])
    return SimpleNamespace(metric=metric, arguments=arguments, ids=ids[samples])


def test_metric_returns_means_and_keeps_every_sample() -> None:
    network = SmallCNN()
    full = filled(network)
    maps, inputs, targets = full.arguments
    expected = deletion_insertion(network, maps, inputs, targets, protocol="official")
    result, rows = full.metric.compute(), full.metric.per_sample()
    assert rows["ids"].tolist() == [10, 11, 12, 13]
    for name in ("deletion", "insertion", "over_all"):
        torch.testing.assert_close(rows[name], getattr(expected, name).float())
        torch.testing.assert_close(result[name], rows[name].mean())


def test_metric_contract() -> None:
    network = SmallCNN()
    full = filled(network)
    expected = full.metric.compute()

    restored = pickle.loads(pickle.dumps(full.metric))
    assert restored.compute() == expected
    copy = full.metric.clone()
    assert copy.compute() == expected
    copy.reset()
    with (
        pytest.raises(ValueError, match="call update first"),
        pytest.warns(UserWarning, match="before the ``update`` method"),
    ):
        copy.compute()
    assert full.metric.compute() == expected

    # Parts give the whole, in any order, and a sample that comes again counts once.
    for first, second in [(slice(0, 1), slice(1, 4)), (slice(2, 4), slice(0, 3))]:
        merged = filled(network, first).metric
        merged.merge_state(filled(network, second).metric)
        torch.testing.assert_close(merged.compute(), expected)
        assert merged.per_sample()["ids"].tolist() == [10, 11, 12, 13]

    # `forward` returns the batch's value and accumulates.
    stepwise = DeletionInsertion(network, "official")
    for i in range(4):
        batch = stepwise(*(t[i : i + 1] for t in full.arguments), ids=full.ids[i : i + 1])
        torch.testing.assert_close(batch["over_all"], full.metric.per_sample()["over_all"][i])
    torch.testing.assert_close(stepwise.compute(), expected)

    moved = full.metric.to("meta")
    assert {value.device.type for value in moved.deletion} == {"meta"}


def test_samples_without_ids_all_count_and_conflicts_warn() -> None:
    network = SmallCNN()
    full = filled(network)
    maps, inputs, targets = full.arguments
    metric = DeletionInsertion(network, "official")
    metric.update(maps, inputs, targets)
    metric.update(maps, inputs, targets)
    assert len(metric.per_sample()["ids"]) == 8
    metric.reset()
    for sample in (0, 1):
        metric.update(maps[[sample]], inputs[[sample]], sample, ids=[3])
    with pytest.warns(UserWarning, match=r"ids \[3\] came again with another value"):
        assert len(metric.per_sample()["ids"]) == 1
    with pytest.raises(ValueError, match="one integer id for each of 4"):
        metric.update(maps, inputs, targets, ids=[1, 2])


def test_network_stays_the_callers() -> None:
    network = SmallCNN()
    metric = DeletionInsertion(network)
    metric.train()
    assert not network.training
    assert not list(metric.parameters())
    assert not metric.state_dict()


def test_a_step_of_less_than_a_pixel_takes_one_at_a_time() -> None:
    assert DeletionInsertionProtocol(step=1e-12).counts(50_176) == [*range(50_177)]
