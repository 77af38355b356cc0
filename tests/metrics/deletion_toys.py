"""What the tests of deletion and insertion share: a network, maps and a protocol."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from captum_groupcam.metrics.functional import DeletionInsertionProtocol

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
