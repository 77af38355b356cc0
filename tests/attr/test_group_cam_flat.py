"""Flat masks and dead layers: no queries, zeros, and a warning."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_groupcam import GroupCAM
from tests.toy_networks import Recorder, classifier, images


def test_flat_masks_cost_no_query():
    with torch.no_grad():
        flat = classifier(seed=3)
        flat.features[2].weight[:4] = 0  # the first half of the channels is constant
        flat.features[2].bias[:4] = 1
    recorder = Recorder(flat)
    _, scores = GroupCAM(recorder, flat.features).attribute(
        images(2, 12, 12),
        1,
        n_groups=2,
        gradient_free=True,
        return_group_scores=True,
        internal_batch_size=100,
    )
    assert scores[:, 0].tolist() == [0, 0]
    assert scores[:, 1].ne(0).all()
    # A row is asked alone for the layer's order, and for its score.
    assert recorder.batch_sizes == [2, 1, 2, 1, 2]


@pytest.mark.parametrize("gradient_free", [False, True])
def test_dead_layer_gives_zeros_and_a_warning(gradient_free):
    network = classifier()
    with torch.no_grad():
        network.features[2].weight.zero_()
        network.features[2].bias.fill_(-1)
    with pytest.warns(UserWarning, match=r"The maps of samples \[0, 1\] are zero"):
        attributions = GroupCAM(network, network.features).attribute(
            images(2, 12, 12), 1, gradient_free=gradient_free, baselines=0.0
        )
    assert torch.equal(attributions, torch.zeros(2, 1, 12, 12))


def test_only_the_dead_sample_is_zero():
    network = classifier(seed=2)
    x = images(3, 12, 12)
    x[1] = 0.5
    with pytest.warns(UserWarning, match=r"The maps of samples \[1\] are zero"):
        attributions = GroupCAM(network, network.features).attribute(
            x, 2, n_groups=4, relu_attributions=False
        )
    assert attributions.flatten(1).any(1).tolist() == [True, False, True]
    others = GroupCAM(network, network.features).attribute(
        x[[0, 2]], 2, n_groups=4, relu_attributions=False
    )
    torch.testing.assert_close(attributions[[0, 2]], others, rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [5, 16, 31])
def test_constant_activations_are_flat_whatever_the_baseline(width):
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 33, 3), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(33, 5)),
    ).eval()
    x = torch.full((2, 3, width, width + 2), 0.37)
    with pytest.warns(UserWarning, match="are zero"):
        attributions = GroupCAM(network, network[0]).attribute(
            x, 1, baselines=0.0, n_groups=4, relu_attributions=False
        )
    assert not attributions.any()
