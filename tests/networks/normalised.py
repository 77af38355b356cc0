"""Networks with batch normalisation, for the tests of accelerated ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.toy_networks import seeded


class Normalised(nn.Module):
    """Convolutions and batch normalisations with statistics that are not their defaults."""

    def __init__(self, convolution: Any = nn.Conv2d, norm: Any = nn.BatchNorm2d) -> None:
        super().__init__()
        self.first, self.norm = convolution(3, 8, 3), norm(8)
        self.second, self.last = convolution(8, 8, 3, bias=False), norm(8)
        self.head = nn.Linear(8, 5)
        for module in (self.norm, self.last):
            for tensor, low in (
                (module.running_mean, -1),
                (module.running_var, 0.5),
                (module.weight, 0.5),
                (module.bias, -0.5),
            ):
                nn.init.uniform_(tensor, low, 2)
        nn.init.normal_(self.head.weight)

    def features(self, inputs: Tensor) -> Tensor:
        return self.last(self.second(self.norm(self.first(inputs)).relu()))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.features(inputs).relu().flatten(2).mean(2))


def normalised(kind: type[Normalised] = Normalised, **options: Any) -> Normalised:
    return seeded(lambda: kind(**options)).eval()


def outputs(network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return network(inputs)
