"""Small networks shared by the tests: quick, seeded, and with class rows that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


class Classifier(nn.Module):
    """Convolutions, then a head whose gradient differs from position to position."""

    def __init__(self, dims: int, in_channels: int, channels: int, classes: int, inplace: bool):
        super().__init__()
        convolution = CONVOLUTIONS[dims]
        self.features = nn.Sequential(
            convolution(in_channels, channels, 3, padding=1),
            nn.ReLU(inplace),
            convolution(channels, channels, 3, stride=2, padding=1),
            nn.ReLU(inplace),
        )
        self.head = nn.Sequential(
            POOLS[dims](2), nn.Flatten(), nn.Linear(channels * 2**dims, classes)
        )
        # Weights large enough that what a mask hides moves the scores.
        for index in (0, 2):
            nn.init.kaiming_normal_(self.features[index].weight)
        nn.init.normal_(self.head[-1].weight, std=2.0)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.features(inputs))


def seeded(make: Callable[[], Any], seed: int = 0) -> Any:
    """What ``make`` builds from a seed of its own; the state of the generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def classifier(
    dims: int = 2,
    in_channels: int = 3,
    channels: int = 8,
    classes: int = 5,
    inplace: bool = False,
    seed: int = 0,
) -> Classifier:
    return seeded(lambda: Classifier(dims, in_channels, channels, classes, inplace), seed).eval()


def images(n: int = 2, *size: int, channels: int = 3, seed: int = 0) -> Tensor:
    """N random inputs, each with a bright spot of its own, so that no two look alike."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(n, channels, *(size or (16, 16)), generator=generator)
    for sample in inputs:
        corner = [int(torch.randint(0, max(s // 2, 1), (), generator=generator)) for s in size]
        spot = tuple(slice(c, c + max(s // 2, 1)) for c, s in zip(corner, size, strict=True))
        sample[(slice(None), *spot)] += 1
    return inputs


class Recorder(nn.Module):
    """Passes calls on to a network and keeps the inputs of each."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.calls: list[tuple[Any, ...]] = []
        self.train(network.training)

    @property
    def batch_sizes(self) -> list[int]:
        return [len(args[0]) for args in self.calls]

    def forward(self, *args: Any) -> Tensor:
        self.calls.append(args)
        return self.network(*args)


def hooks(network: nn.Module) -> Counter[str]:
    """How many hooks of each kind the modules of a network carry."""
    kinds = [
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
    ]
    return Counter({kind: sum(len(getattr(m, kind)) for m in network.modules()) for kind in kinds})
