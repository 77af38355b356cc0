"""What says nothing says so: maps of zeros, modules in training mode, heads of another form."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import CAM, GradCAM, GroupCAM
from captum_groupcam.methods import METHODS
from tests.toy_networks import classifier


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_a_map_of_which_no_group_raised_the_score() -> None:
    def against(images: Tensor) -> Tensor:
        return -features(images).mean((1, 2, 3))

    features = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU())
    nn.init.constant_(features[0].weight, 0.1)
    explainer = GroupCAM(against, features)
    x = torch.rand(2, 3, 12, 12)
    with pytest.warns(UserWarning, match=r"samples \[0, 1\] are zero: no mask raised the score"):
        maps = explainer.attribute(x, baselines=0.0, n_groups=4, gradient_free=True)
    assert not maps.any()


def test_a_wrapper_of_a_network_in_evaluation_mode_is_no_alarm() -> None:
    network = classifier().eval()
    wrapper = Wrapper(network)
    assert wrapper.training
    x = torch.rand(1, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = GroupCAM(wrapper, network.features).attribute(x, 1, n_groups=4)
    expected = GroupCAM(network, network.features).attribute(x, 1, n_groups=4)
    torch.testing.assert_close(maps, expected)
    METHODS["grad_cam"](wrapper, network.features)(x, 1)


def test_a_dropout_in_training_mode_inside_is_one() -> None:
    network = nn.Sequential(classifier(), nn.Dropout()).eval()
    network[1].train()
    explainer = GradCAM(network, network[0].features)
    with pytest.warns(UserWarning, match="in training mode"):
        explainer.attribute(torch.rand(1, 3, 16, 16), 1)
    with pytest.raises(ValueError, match="evaluation mode"):
        METHODS["grad_cam"](network, network[0].features)(torch.rand(1, 3, 16, 16), 1)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_cam_takes_a_convolution_of_what_was_pooled(dims: int) -> None:
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    pooling = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[dims - 1]
    features = nn.Sequential(convolution(3, 8, 3), nn.ReLU())
    head = convolution(8, 5, 1)
    network = nn.Sequential(features, pooling(1), head, nn.Flatten()).eval()
    x = torch.rand(2, 3, *[7] * dims)
    maps = CAM(network, features).attribute(x, [1, 4])
    linear = nn.Linear(8, 5)
    linear.load_state_dict({"weight": head.weight.flatten(1), "bias": head.bias})
    usual = nn.Sequential(features, pooling(1), nn.Flatten(), linear).eval()
    torch.testing.assert_close(maps, CAM(usual, features).attribute(x, [1, 4]))


class OwnNorm(nn.BatchNorm2d):
    pass


def test_a_derived_batch_norm_in_training_mode_is_one() -> None:
    network = classifier().eval()
    network.features.insert(1, OwnNorm(8).train())
    explainer, x = GradCAM(network, network.features), torch.rand(2, 3, 16, 16)
    with pytest.warns(UserWarning, match="in training mode"):
        explainer.attribute(x, 1)
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainer.attribute(x, 1)


def test_a_network_in_training_mode_behind_a_function_is_one() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    whole = nn.Sequential(net, head).train()
    for forward in (lambda inputs: whole(inputs), whole.forward):
        with pytest.warns(UserWarning, match="in training mode"):
            GradCAM(forward, net).attribute(torch.rand(1, 3, 8, 8), 1)
    whole.eval()
    GradCAM(lambda inputs: whole(inputs), net).attribute(torch.rand(1, 3, 8, 8), 1)


def test_statistics_of_the_batch_in_evaluation_mode_are_named() -> None:
    network = classifier(seed=2)
    network.features.insert(1, nn.BatchNorm2d(8, track_running_stats=False).eval())
    explainer, x = GradCAM(network, network.features), torch.rand(2, 3, 16, 16)
    with pytest.warns(UserWarning, match="goes by those of the batch: scores.*batch_size=1"):
        together = explainer.attribute(x, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apart = explainer.attribute(x, 1, internal_batch_size=1)
        alone = explainer.attribute(x[:1], 1, internal_batch_size=1)
    torch.testing.assert_close(apart[:1], alone)
    assert (together - apart).abs().max() > 1e-3 * apart.abs().max()
    network.features[1] = nn.InstanceNorm2d(8).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainer.attribute(x, 1)
