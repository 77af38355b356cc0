"""What is timed is what it says; how fast it is, is for ``benchmarks speed`` to say."""

from __future__ import annotations

import re

import torch
from torch import nn

from benchmarks.experiments.speed import Timed, evaluate
from captum_groupcam.models import ImageClassifier, Preprocessing


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(4, 10)
        self.n_images = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.n_images += len(inputs)
        return self.head(self.features(inputs).mean((2, 3)))


def test_an_evaluation_is_compared_with_as_many_forward_passes() -> None:
    torch.manual_seed(0)
    network = Counting().eval()
    preprocess = Preprocessing(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    model = ImageClassifier(network, preprocess, [f"class {i}" for i in range(10)], "features")
    image = torch.rand(1, 3, 16, 16)
    evaluation, passes = evaluate(Timed(model, image, target=1, rounds=1))
    assert evaluation.name == "2 photographs with deletion and insertion"
    (count,) = map(int, re.findall(r"^(\d+) forward passes", passes.name))
    # The class, the map, 101 points of two curves, of which two pairs are the same images, and one
    # of them alone.
    assert count == 2 * (1 + 1 + 200 + 1)
    assert passes.ratio == 1
