"""Networks for signals and for volumes, end to end: the page's own examples."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from captum_groupcam import RISE, ConsensusGroupCAM, GroupCAM, ScoreCAM
from captum_groupcam.metrics.functional import deletion_insertion
from captum_groupcam.networks.layers import find_layer

PAGE = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "how-to" / "dimensions.py"))
NETWORKS = {
    "signal": (nn.Conv1d, nn.AdaptiveMaxPool1d, (96,)),
    "volume": (nn.Conv3d, nn.AdaptiveMaxPool3d, (12, 12, 12)),
}


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS)
def trained(request: pytest.FixtureRequest):
    """A network, inputs with a bump, and where it is."""
    convolution, pool, size = request.param
    network = PAGE["train"](convolution, pool, *size)
    inputs, classes, places = PAGE["examples"](12, *size, seed=1)
    with torch.no_grad():
        assert torch.equal(network(inputs).argmax(1), classes)
    bumps = classes == 1
    return network, inputs[bumps][:4], places[bumps][:4]


@pytest.mark.parametrize("method", [GroupCAM, ScoreCAM, ConsensusGroupCAM])
def test_maps_of_signals_and_volumes_point_at_the_bump(trained, method: type) -> None:
    network, inputs, places = trained
    layer = find_layer(network, inputs[:1])
    assert layer.module is network[3]
    maps = method(network, layer.module).attribute(inputs, target=1)
    assert maps.shape == inputs.shape
    highest = torch.stack([(one[0] == one.max()).nonzero()[0] for one in maps])
    # Within the bump, at half the input's resolution.
    assert (highest - places).abs().max() <= 2


def test_measures_of_signals_and_volumes(trained) -> None:
    network, inputs, _ = trained
    maps = GroupCAM(network, network[3]).attribute(inputs, target=1)
    right = deletion_insertion(network, maps, inputs, 1)
    wrong = deletion_insertion(network, -maps, inputs, 1)
    assert (right.over_all > wrong.over_all).all()


def test_random_masks_of_signals_and_volumes(trained) -> None:
    network, inputs, _ = trained
    maps = RISE(network).attribute(inputs[:1], target=1, n_masks=8, seed=0)
    assert maps.shape == inputs[:1].shape
    assert maps.isfinite().all()
