"""Networks and maps that the tests of the measures measure."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measures.explained import Explained
from benchmarks.measures.registry import MEASURES

SIZE = 16


def quantus(kind: str, explained: Explained) -> np.ndarray:
    (values,) = MEASURES[f"quantus.{kind}"](explained).values()
    return values.numpy()


class Additive(nn.Module):
    """Two classes: the input weighted and summed, and a constant."""

    def __init__(self, weights: Tensor, constant: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.constant = constant
        self.queries: list[Tensor] = []
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        self.queries.extend(inputs)
        score = (inputs * self.weights).sum((1, 2, 3))
        return torch.stack([score, torch.full_like(score, self.constant)], dim=1)


def gradient_map(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    with torch.enable_grad():
        inputs = inputs.clone().requires_grad_()
        model(inputs).gather(1, targets[:, None]).sum().backward()
    return inputs.grad.abs().sum(1, keepdim=True)


def conv_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(96, 5),
    ).eval()


def square(rows: slice, columns: slice, n: int = 1) -> Tensor:
    mask = torch.zeros(n, 1, SIZE, SIZE, dtype=torch.bool)
    mask[:, :, rows, columns] = True
    return mask


def explained_by_chance(n: int = 3, seed: int = 0) -> Explained:
    generator = torch.Generator().manual_seed(seed)
    return Explained(
        conv_net(),
        torch.randn(n, 3, SIZE, SIZE, generator=generator),
        torch.randint(5, (n,), generator=generator),
        torch.rand(n, 1, SIZE, SIZE, generator=generator),
        masks=square(slice(3, 9), slice(4, 12), n),
        explain=gradient_map,
        seed=7,
    )


def additive(*, baseline_weight: float = 0.0) -> Explained:
    """An object on which class 0 depends, explained by what its pixels contribute."""
    mask = square(slice(4, 8), slice(6, 10))
    weights = torch.where(mask, 1.0, baseline_weight)
    inputs = torch.where(mask, 1.0, 0.3).repeat(1, 3, 1, 1)
    inputs[:, :, 0, 0] = 0.0  # black
    model = Additive(weights / 8, constant=3.0)
    return Explained(
        model, inputs, torch.tensor([0]), weights.clamp(min=0) * inputs[:, :1], masks=mask
    )
