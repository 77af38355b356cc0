"""Trains a small network to decide by planted evidence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.planted_network import NETWORKS, Architecture
from ...data.scenes import CLASSES, NOTHING, Variant, make_scene

__all__ = ["train"]

#: First number of the seeds, which the measured scenes do not have.
_TRAINED_ON = 1
#: Scenes whose backdrops are used again, flipped and moved, with new evidence.
_POOL = 600


def train(
    variant: Variant,
    architecture: Architecture = "residual",
    *,
    steps: int = 400,
    batch_size: int = 64,
    learning_rate: float = 6e-3,
    seed: int = 0,
    said: Callable[[str], None] = print,
) -> nn.Module:
    """Trains a network.

    Every batch has new evidence, one in nine of its scenes none. Backdrops come from a pool,
    turned, flipped and moved, since they cost most to draw.

    Args:
        variant (str): ``patch`` or ``mark``.
        architecture (str, optional): ``residual`` or ``transformer``. Default: ``residual``.
        steps (int, optional): Number of batches. Default: 400.
        batch_size (int, optional): Scenes of a batch. Default: 64.
        learning_rate (float, optional): The highest one. Default: 6e-3.
        seed (int, optional): Seed of weights and scenes. Default: 0.
        said (callable, optional): Is told how it goes. Default: print.

    Returns:
        torch.nn.Module: The network, in evaluation mode.
    """
    rng = np.random.default_rng((_TRAINED_ON, seed))
    pool = [make_scene(variant, (_TRAINED_ON, seed, i)).backdrop for i in range(_POOL)]
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        network = NETWORKS[architecture]()
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    right: list[float] = []
    for step in range(steps):
        inputs, labels = _batch(variant, pool, batch_size, (seed, step), rng)
        scores = network(inputs)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(scores, labels))
        optimizer.step()
        schedule.step()
        right.append((scores.argmax(1) == labels).double().mean().item())
        if (step + 1) % 100 == 0:
            said(f"step {step + 1} of {steps}: {100 * np.mean(right[-100:]):.1f} % right")
    return network.eval()


def _batch(
    variant: Variant,
    pool: list[np.ndarray],
    batch_size: int,
    seed: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    images, labels = [], []
    for index in range(batch_size):
        backdrop = pool[rng.integers(len(pool))]
        backdrop = np.rot90(backdrop, int(rng.integers(4)))[:, :: int(rng.choice((-1, 1)))]
        backdrop = np.roll(backdrop, tuple(rng.integers(0, len(backdrop), 2)), (0, 1)).copy()
        if rng.random() < 1 / len(CLASSES):
            labels.append(CLASSES.index(NOTHING))
        else:
            scene = make_scene(variant, (_TRAINED_ON, *seed, index), backdrop=backdrop)
            backdrop = scene.pixels
            labels.append(scene.label)
        images.append(backdrop)
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return (inputs - 0.5) / 0.5, torch.tensor(labels)
