"""What all tests of ideas explain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.toy_networks import SmallCNN, small_inputs

from .test_ideas import TARGET


@pytest.fixture
def network() -> SmallCNN:
    """A network all of whose 64 channels speak for the class, so that every group is a mask."""
    network = SmallCNN(channels=64)
    with torch.no_grad():
        network.classifier.weight[TARGET].abs_()
    return network


@pytest.fixture
def image() -> Tensor:
    return small_inputs(1)
