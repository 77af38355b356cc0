"""A network, inputs and their map, for the tests of one call."""

from __future__ import annotations

import pytest

from captum_groupcam import GroupCAM
from tests.attr.group_cam_calls import OPTIONS
from tests.toy_networks import classifier, images


@pytest.fixture
def network():
    return classifier(seed=2)


@pytest.fixture
def x():
    return images(3, 14, 16)


@pytest.fixture
def expected(network, x):
    """The signed map in plain float32; it says something about every sample."""
    attributions = GroupCAM(network, network.features).attribute(x, 2, **OPTIONS)
    assert attributions.flatten(1).abs().amax(1).gt(1e-3).all()
    return attributions
