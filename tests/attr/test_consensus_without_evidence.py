"""ConsensusGroupCAM where a map, the scores or the gradient say nothing, or only rounding does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_groupcam import ConsensusGroupCAM, FinerCAM, GroupCAM
from captum_groupcam.attr.maps import divide_by_maximum, guided_filter, sharpened
from captum_groupcam.networks import find_reshape_transform
from tests.attr.test_consensus import OPTIONS
from tests.toy_networks import SmallCNN, classifier, images, small_inputs, small_vit


@pytest.mark.parametrize(("seed", "index", "target"), [(280, 1, 1), (215, 1, 1), (97, 1, 1)])
def test_where_finer_cam_shows_nothing_it_is_group_cam(seed: int, index: int, target: int) -> None:
    network = classifier(channels=3 + seed % 4, classes=2 + seed % 5, pooled=1, seed=seed)
    inputs = images(3, 16, 16, seed=seed)[index : index + 1]
    finer = FinerCAM(network, network.features).attribute(inputs, target, relu_attributions=True)
    assert not finer.any()
    consensus = ConsensusGroupCAM(network, network.features)
    maps, effects = consensus.attribute(inputs, target, return_effects=True)
    assert effects[0, 0] == 0
    group_cam = GroupCAM(network, network.features)
    expected = group_cam.attribute(inputs, target, n_groups=19, denoise_at="input")
    expected = divide_by_maximum(guided_filter(expected / expected.amax(), inputs, 1))
    leaf = inputs.clone().requires_grad_()
    (gradients,) = torch.autograd.grad(network(leaf)[:, target].sum(), leaf)
    expected = sharpened(expected, gradients, 6 / 224 * 16, 0.2)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)


def test_where_no_group_shows_anything_it_is_finer_cam() -> None:
    network = classifier(channels=4, classes=2, pooled=1, seed=25)
    inputs = images(1, 16, 16, seed=25)
    with pytest.warns(UserWarning, match="every mask is flat"):
        GroupCAM(network, network.features).attribute(inputs, 1, n_groups=19)
    with pytest.warns(UserWarning, match="are Finer-CAM's, to which Group-CAM adds nothing"):
        maps = ConsensusGroupCAM(network, network.features).attribute(inputs, 1)
    assert maps.amax() > 0.5


def test_plateaus_at_the_percentile_are_the_same_in_a_batch() -> None:
    network = small_vit().double().eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nn.init.normal_(network.heads.head.weight)
    inputs, layer = images(3, 32, 32).double(), network.encoder.layers[1].ln_1
    keywords = {"reshape_transform": find_reshape_transform(network, layer, inputs[:1])}
    consensus = ConsensusGroupCAM(network, layer)
    maps = consensus.attribute(inputs, 2, **keywords)
    alone = [consensus.attribute(inputs[i : i + 1], 2, **keywords) for i in range(3)]
    torch.testing.assert_close(maps, torch.cat(alone), rtol=0, atol=1e-9)


def test_saturated_network_is_a_warning() -> None:
    network = classifier(channels=24)
    network.head[-1].weight.data.mul_(300)
    inputs = images(1, 18, 20, seed=3)
    likeliest = int(network(inputs).argmax())
    with pytest.warns(UserWarning, match="are Finer-CAM's, to which Group-CAM adds nothing"):
        ConsensusGroupCAM(network, network.features).attribute(inputs, likeliest)


def test_guide_that_is_rounding_is_flat() -> None:
    network = classifier(dims=1, in_channels=8, channels=24, seed=1)
    inputs = images(1, 128, channels=8, seed=1)
    inputs = inputs - inputs.mean(1, keepdim=True)
    consensus = ConsensusGroupCAM(network, network.features)
    maps, moved = (consensus.attribute(x, 2, edge_radius=0.04) for x in (inputs, inputs + 1e-7))
    torch.testing.assert_close(maps, moved, rtol=0, atol=1e-4)


def test_gradient_of_the_input_that_is_zero_says_nothing() -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    consensus = ConsensusGroupCAM(lambda x: network((x * 255).round() / 255), network.features)
    maps = consensus.attribute(inputs, 1, **OPTIONS)
    expected = ConsensusGroupCAM(network, network.features).attribute(
        (inputs * 255).round() / 255, 1, **OPTIONS, gradient_power=1e-9
    )
    torch.testing.assert_close(maps, expected, rtol=0, atol=0.02)


def test_blur_of_next_to_nothing_is_none() -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    consensus = ConsensusGroupCAM(network.float(), network.features)
    maps = consensus.attribute(inputs.float(), 1, n_groups=3, gradient_sigma=1e-60)
    assert maps.isfinite().all()


@pytest.mark.filterwarnings("error")
def test_nothing_to_ask_is_a_zero_map_and_a_warning() -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    consensus = ConsensusGroupCAM(network, network.features)
    baselines = torch.stack([inputs[0], torch.zeros_like(inputs[1])])
    with pytest.warns(UserWarning, match=r"maps of samples \[0\] are zero"):
        maps = consensus.attribute(inputs, 1, baselines=baselines, n_groups=3)
    assert not maps[0].any()
    assert maps[1].any()
