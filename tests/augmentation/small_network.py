"""A network, images and labels for the tests of the recipe, and what it must not change."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.controls import ShiftedBlur
from captum_groupcam.augmentation import GradCAMBlur, GroupCAMBlur
from tests.toy_networks import hooks, images

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


def batch(samples: int = 4) -> Tensor:
    return images(samples, SIZE, SIZE)


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
