from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Sees edges, hence nothing in a blurred image; numbers beside the image shift its output."""

    def __init__(self) -> None:
        super().__init__()
        edges = nn.Conv2d(3, 8, 3, bias=False)
        edges.weight.data -= edges.weight.mean((2, 3), keepdim=True)
        mixed = nn.Conv2d(8, 12, 3, bias=False)
        self.features = nn.Sequential(edges, nn.ReLU(), nn.MaxPool2d(2), mixed)
        self.relu = nn.ReLU()
        self.head = nn.Linear(12, 5, bias=False)
        nn.init.normal_(self.head.weight, std=20)  # decided, as a trained network is

    def forward(self, image: Tensor, shift: Tensor | None = None) -> Tensor:
        output = self.head(self.relu(self.features(image)).mean((2, 3)))
        return output if shift is None else output + shift


@pytest.fixture
def model() -> Network:
    torch.manual_seed(2)  # its classes 1 and 2 are both likely, for any of the images
    return Network().eval()


@pytest.fixture
def noise() -> Tensor:
    return torch.rand(4, 3, 24, 20, generator=torch.Generator().manual_seed(1))
