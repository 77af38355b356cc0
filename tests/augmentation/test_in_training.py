"""Which images are altered, by which network, wrapped and in several processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from benchmarks.controls import ShiftedBlur
from captum_groupcam.augmentation import BackgroundBlur, GradCAMBlur, GroupCAMBlur
from captum_groupcam.networks.target_layer import TargetLayer
from tests.augmentation.small_network import BLURS, LABELS, SIZE, Network, batch, state
from tests.toy_networks import seeded

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
