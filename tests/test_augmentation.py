"""The recipe against a loop written from the paper, and what it leaves as it was."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate1d
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from benchmarks.controls import ShiftedBlur, shift
from captum_groupcam.augmentation import (
    BackgroundBlur,
    GradCAMBlur,
    GroupCAMBlur,
    above_mean,
    blur_background,
)
from captum_groupcam.networks.target_layer import TargetLayer
from tests.toy_networks import hooks, images, seeded

BLURS = [GroupCAMBlur, ShiftedBlur, GradCAMBlur]
SIZE = 16
LABELS = torch.tensor([3, 1, 0, 4])


class Network(nn.Module):
    """With what training changes and draws: batch statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 5)
        )
        nn.init.normal_(self.head[-1].weight, std=2.0)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.features(inputs))


@pytest.fixture
def network() -> Network:
    """In training mode, but for a part that is frozen."""
    model = seeded(Network).train()
    model.features[1].running_mean += 0.1
    model.features[0].eval()
    return model


def batch(samples: int = 4) -> Tensor:
    return images(samples, SIZE, SIZE)


# --- the recipe


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


# --- what it leaves as it was


def state(network: nn.Module) -> dict[str, Any]:
    return {
        "tensors": copy.deepcopy(network.state_dict()),
        "training": [module.training for module in network.modules()],
        "hooks": hooks(network),
        "gradients": [parameter.grad for parameter in network.parameters()],
        "needs": [parameter.requires_grad for parameter in network.parameters()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1],  # noqa: NPY002
        "grad mode": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("blur", BLURS)
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_leaves_no_trace(
    network: Network, blur: type[BackgroundBlur], grad: bool, fails: bool
) -> None:
    inputs, labels = batch(), LABELS + 100 * fails
    whole = inputs.clone()
    network.features[3].requires_grad_(False)
    before = state(network)
    with torch.set_grad_enabled(grad):
        if fails:
            with pytest.raises((ValueError, IndexError, AssertionError, RuntimeError)):
                blur(network, network.features)(inputs, labels)
        else:
            altered = blur(network, network.features, probability=0.7)(inputs, labels)
            assert not altered.requires_grad
    after = state(network)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert torch.equal(inputs, whole)


@pytest.mark.parametrize("blur", BLURS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_keeps_dtype_and_memory_format(
    network: Network,
    blur: type[BackgroundBlur],
    dtype: torch.dtype,
    layout: torch.memory_format,
    probability: float,
) -> None:
    inputs = batch().to(dtype).contiguous(memory_format=layout)
    make = blur(network.to(dtype), network.features, probability=probability, seed=3)
    altered = make(inputs, LABELS)
    assert not torch.equal(altered, inputs)
    assert (altered.dtype, altered.shape) == (inputs.dtype, inputs.shape)
    assert altered.stride() == inputs.stride()


@pytest.mark.parametrize("blur", BLURS)
def test_inside_autocast_training_still_has_gradients(
    network: Network, blur: type[BackgroundBlur]
) -> None:
    inputs = batch()
    with torch.autocast("cpu", torch.bfloat16):
        altered = blur(network, network.features)(inputs, LABELS)
        assert altered.dtype == torch.float32
        loss = F.cross_entropy(network(altered), LABELS)
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("blur", BLURS)
def test_compiled_network(network: Network, blur: type[BackgroundBlur]) -> None:
    inputs = batch()
    expected = blur(network, network.features)(inputs, LABELS)
    compiled = torch.compile(network, backend="eager")
    altered = blur(compiled, network.features)(inputs, LABELS)
    torch.testing.assert_close(altered, expected)
    assert compiled.training
    assert network.training


# --- which images, by which network


class Everything(BackgroundBlur):
    """Finds nothing important."""

    def masks(self, images: Tensor, labels: Tensor, baseline: Tensor, draws: np.ndarray) -> Tensor:
        return torch.zeros_like(images[:, :1], dtype=torch.bool)


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.7, 1.0])
def test_probability_is_the_share_of_altered_images(network: Network, probability: float) -> None:
    blur = Everything(network, network.features, probability=probability)
    inputs, labels = batch(40), torch.zeros(40, dtype=torch.long)
    shares = [
        float((blur(inputs, labels) != inputs).flatten(1).any(1).float().mean()) for _ in range(5)
    ]
    assert np.mean(shares) == pytest.approx(probability, abs=0.12)  # 3 deviations of 200 draws
    assert blur.step == 5


def test_draws_depend_on_seed_and_step_alone(network: Network) -> None:
    def run(seed: int, first: int) -> list[Tensor]:
        torch.manual_seed(first)
        blur = ShiftedBlur(network, network.features, 2, probability=0.5, seed=seed)
        blur.step = first
        return [blur(batch(), LABELS) for _ in range(4 - first)]

    whole, later, other = run(0, 0), run(0, 2), run(1, 0)
    assert all(map(torch.equal, whole[2:], later))
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole[0], other[0])


def test_every_n_steps(network: Network) -> None:
    blur = GradCAMBlur(network, network.features, every_n_steps=3)
    inputs = batch()
    altered = [not torch.equal(blur(inputs, LABELS), inputs) for _ in range(7)]
    assert altered == [True, False, False, True, False, False, True]


@pytest.mark.parametrize(
    "options",
    [{"probability": 1.5}, {"every_n_steps": 0}, {"every_n_steps": 1.5}, {"probability": math.nan}],
)
def test_options_out_of_range(network: Network, options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="must be"):
        GroupCAMBlur(network, network.features, **options)


@pytest.mark.parametrize("blur", BLURS)
@pytest.mark.parametrize("averaged", [True, False])
def test_teacher_scores_and_is_left_as_it_was(
    network: Network, blur: type[BackgroundBlur], averaged: bool
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        other = Network().train()
    teacher = AveragedModel(other) if averaged else other
    before = state(teacher)
    inputs = batch()
    by_teacher = blur(network, network.features, teacher=teacher)(inputs, LABELS)
    torch.testing.assert_close(state(teacher), before, rtol=0, atol=0)
    other_alone = blur(other, other.features)(inputs, LABELS)
    torch.testing.assert_close(by_teacher, other_alone)
    assert not torch.equal(by_teacher, blur(network, network.features)(inputs, LABELS))


def test_teacher_of_another_structure(network: Network) -> None:
    with pytest.raises(ValueError, match="not found in the teacher"):
        GroupCAMBlur(network, network.features, teacher=nn.Linear(2, 2))


# --- wrapped networks, and several processes


def test_network_behind_fabric(network: Network) -> None:
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    inputs = batch()
    expected = GroupCAMBlur(network, network.features)(inputs, LABELS)
    wrapped = fabric.setup(network)
    assert torch.equal(GroupCAMBlur(wrapped, network.features)(inputs, LABELS), expected)


class Tokens(nn.Module):
    """The last layer's positions as tokens, N x T x C."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network, self.tokens = network, nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.tokens(self.network.features(inputs).flatten(2).transpose(1, 2))
        return self.network.head(to_grid(tokens))


def to_grid(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (SIZE // 2, SIZE // 2))


@pytest.mark.parametrize("blur", BLURS)
def test_tokens_are_brought_to_a_grid(network: Network, blur: type[BackgroundBlur]) -> None:
    inputs, model = batch(), Tokens(network)
    altered = blur(model, TargetLayer(model.tokens, reshape_transform=to_grid))(inputs, LABELS)
    torch.testing.assert_close(altered, blur(network, network.features)(inputs, LABELS))


def step(model: nn.Module, network: Network, rows: slice) -> tuple[Tensor, list[Tensor]]:
    blur = ShiftedBlur(model, network.features, 4, probability=0.6)
    altered = [blur(batch()[rows], LABELS[rows]) for _ in range(2)][-1]
    # A sum, for processes to add up; DDP takes means.
    F.cross_entropy(model(altered), LABELS[rows]).backward()
    return altered, [parameter.grad for parameter in network.parameters()]


def frozen_network() -> Network:
    """Without what differs from process to process: batch statistics and dropout."""
    return seeded(Network).eval()


def process(rank: int, rendezvous: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    try:
        network = frozen_network()
        model = DistributedDataParallel(network)
        # With any exchange among the queries, the one that asks alone would wait in vain.
        if rank:
            GroupCAMBlur(model, network.features)(batch(), LABELS)
        torch.save(step(model, network, slice(rank, None, 2)), Path(results) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    mp.spawn(process, ((tmp_path / "rendezvous").as_uri(), str(tmp_path)), nprocs=2)
    network = frozen_network()
    altered, gradients = step(network, network, slice(None))
    for rank in (0, 1):
        share, exchanged = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(share, altered[rank::2])
        torch.testing.assert_close(exchanged, gradients)


@pytest.mark.parametrize(
    "labels",
    [torch.tensor([1]), torch.tensor([1, 0, -1]), torch.tensor([1.0, 0.0, 2.0]), torch.ones(3, 1)],
    ids=["one for three", "negative", "no integers", "two dimensions"],
)
def test_labels_that_do_not_fit_are_refused(network: Network, labels: Tensor) -> None:
    images = torch.rand(3, 3, 16, 16)
    blur = GroupCAMBlur(network, network.features, 2)
    with pytest.raises(ValueError, match="a class from 0 for each of 3 images"):
        blur(images, labels)
    assert blur.step == 0


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
