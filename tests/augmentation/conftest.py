"""The network that is trained."""

from __future__ import annotations

import pytest

from tests.augmentation.small_network import Network
from tests.toy_networks import seeded


@pytest.fixture
def network() -> Network:
    """In training mode, but for a part that is frozen."""
    model = seeded(Network).train()
    model.features[1].running_mean += 0.1
    model.features[0].eval()
    return model
