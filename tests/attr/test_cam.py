from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import nn

from captum_groupcam import CAM
from tests.toy_networks import SmallCNN, real_image, small_inputs


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_is_equation_2(dims):
    network = SmallCNN(dims)
    inputs = small_inputs(2, dims, 12)
    maps = CAM(network, network.features).attribute(inputs, [1, 4])
    activations = network.features(inputs).detach()
    weights = network.classifier.weight.detach()
    for sample, target in enumerate([1, 4]):
        expected = sum(w * a for w, a in zip(weights[target], activations[sample], strict=True))
        torch.testing.assert_close(maps[sample, 0], expected)


def test_equals_torchcam():
    from torchcam.methods import CAM as TorchCAM

    network, image = SmallCNN(channels=12), real_image()
    with TorchCAM(network, network.features, "classifier", input_shape=(3, 24, 24)) as extractor:
        with torch.no_grad():
            network(image)
        (theirs,) = extractor(2, normalized=False)
    ours = CAM(network, network.features).attribute(image, 2)
    assert ours.std() > 0
    torch.testing.assert_close(ours[:, 0], theirs)


def test_equals_grad_cam_up_to_scale():
    network, inputs = SmallCNN(), small_inputs(2)
    maps = CAM(network, network.features).attribute(inputs, [0, 3])
    grad_cam = LayerGradCam(network, network.features).attribute(inputs, [0, 3])
    # Grad-CAM's weights are the mean gradients: of 64 positions, each has w / 64.
    torch.testing.assert_close(maps, grad_cam.detach() * 64)


def test_explains_efficientnet_lite0(lite0, images):
    inputs = images("cat")
    cam = CAM(lite0.network, lite0.layer.module)
    maps = cam.attribute(inputs, 281, **lite0.layer.keywords)
    assert maps.shape == (1, 1, 7, 7)
    with torch.no_grad():
        score = lite0.network(inputs)[0, 281]
    torch.testing.assert_close(maps.mean(), score - lite0.network._fc.bias[281])
    grad_cam = LayerGradCam(lite0.network, lite0.layer.module).attribute(
        inputs, 281, **lite0.layer.keywords
    )
    torch.testing.assert_close(maps, grad_cam.detach() * 49, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", [1, torch.tensor(1), torch.tensor([1, 1]), [1, 1], (1,), -4])
def test_forms_of_target(target):
    network, inputs = SmallCNN(), small_inputs(2)
    method = CAM(network, network.features)
    torch.testing.assert_close(method.attribute(inputs, target), method.attribute(inputs, [1, 1]))


def test_one_value_a_sample_needs_no_target():
    network, inputs = SmallCNN(classes=1), small_inputs(2)
    method = CAM(network, network.features)
    torch.testing.assert_close(method.attribute(inputs), method.attribute(inputs, 0))


class Head(nn.Module):
    """Any head over the same features."""

    def __init__(self, head):
        super().__init__()
        self.inner = SmallCNN()
        self.features = self.inner.features
        self.head = head
        self.eval()

    def forward(self, inputs):
        return self.head(self.inner, self.features(inputs))


def test_functional_layers_without_bias():
    network = Head(lambda inner, maps: F.linear(maps.mean((2, 3)), weight=inner.classifier.weight))
    inputs = small_inputs(2)
    torch.testing.assert_close(
        CAM(network, network.features).attribute(inputs, 1),
        CAM(network.inner, network.features).attribute(inputs, 1),
    )


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("groups", [2, 4])
def test_a_grouped_convolution_sees_a_part_of_the_channels(groups, named):
    features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    last = nn.Conv2d(8, 4, 1, groups=groups)
    if named:
        last.forward = lambda maps: F.conv2d(
            maps, weight=last.weight, bias=last.bias, groups=groups
        )
    network = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), last, nn.Flatten()).eval()
    inputs, targets = torch.rand(2, 3, 12, 12), [1, 3]
    maps = CAM(network, features).attribute(inputs, targets)
    activations = features(inputs).detach()
    for sample, target in enumerate(targets):
        group = target // (4 // groups)
        seen = range(group * 8 // groups, (group + 1) * 8 // groups)
        weights = last.weight[target, :, 0, 0].detach()
        expected = sum(w * activations[sample, k] for w, k in zip(weights, seen, strict=True))
        torch.testing.assert_close(maps[sample, 0], expected)


FACTORS = {
    "sum over positions": (lambda maps: maps.sum((2, 3)), 64),
    "twice the mean": (lambda maps: 2 * maps.mean((2, 3)), 2),
    "less the mean": (lambda maps: -maps.mean((2, 3)), -1),
}


@pytest.mark.parametrize("pooling", FACTORS)
def test_a_factor_of_the_pooling_belongs_to_the_weights(pooling):
    pool, factor = FACTORS[pooling]
    network = Head(lambda inner, maps: inner.classifier(pool(maps)))
    inputs = small_inputs(2)
    maps = CAM(network, network.features).attribute(inputs, [1, 4])
    expected = CAM(network.inner, network.features).attribute(inputs, [1, 4]) * factor
    torch.testing.assert_close(maps, expected)
    bias = network.inner.classifier.bias[[1, 4]]
    outputs = network(inputs)[[0, 1], [1, 4]].detach()
    torch.testing.assert_close(maps.mean((1, 2, 3)), outputs - bias.detach())


HEADS = {
    "softmax": (
        lambda inner, maps: inner.classifier(maps.mean((2, 3))).softmax(1),
        "what the linear layer gives is changed before it is returned",
    ),
    "permuted classes": (
        lambda inner, maps: inner.classifier(maps.mean((2, 3))).flip(1),
        "what the linear layer gives is changed before it is returned",
    ),
    "two layers": (
        lambda inner, maps: inner.classifier(
            F.linear(maps.mean((2, 3)), torch.eye(6).double() + 0.1).relu()
        ),
        "1 more follows the linear layer that gets the mean",
    ),
    "three layers": (
        lambda inner, maps: F.linear(
            F.linear(inner.classifier(maps.mean((2, 3))), torch.eye(5).double()),
            torch.eye(5).double() + 0.1,
        ),
        "2 more follow the linear layer that gets the mean",
    ),
    "maximum": (
        lambda inner, maps: inner.classifier(maps.amax((2, 3))),
        "a linear layer gets 6 values, but they are not the mean of the layer over its positions",
    ),
    "a factor for each channel": (
        lambda inner, maps: inner.classifier(maps.mean((2, 3)) * torch.arange(1.0, 7)),
        "a linear layer gets 6 values, but they are not the mean of the layer over its positions",
    ),
    "no pooling": (
        lambda inner, maps: F.linear(maps.flatten(1), torch.ones(5, 384).double()),
        "no linear layer gets 6 values, one for each channel of the layer",
    ),
    "no linear layer": (
        lambda inner, maps: maps.mean((2, 3))[:, :5],
        "no linear layer gets 6 values, one for each channel of the layer",
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_refuses_other_heads(head):
    forward, reason = HEADS[head]
    network = Head(forward)
    with pytest.raises(ValueError, match=f"pool the layer by its mean .* Here {reason}"):
        CAM(network, network.features).attribute(small_inputs(2), 0)


def test_refuses_other_layers():
    network = SmallCNN()
    with pytest.raises(ValueError, match="Choose the layer that is pooled"):
        CAM(network, network.features[1]).attribute(small_inputs(2), 0)


def test_ignores_other_linear_layers():
    network = Head(
        lambda inner, maps: (
            inner.classifier(maps.mean((2, 3)))
            + 0 * F.linear(maps.mean((2, 3)), torch.ones(5, 6).double())
        )
    )
    inputs = small_inputs(2)
    torch.testing.assert_close(
        CAM(network, network.features).attribute(inputs, 1),
        CAM(network.inner, network.features).attribute(inputs, 1),
    )


def test_under_autocast():
    network, inputs = SmallCNN().float(), small_inputs(2).float()
    method = CAM(network, network.features)
    with torch.autocast("cpu", torch.bfloat16):
        maps = method.attribute(inputs, 1)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, method.attribute(inputs, 1), rtol=0.05, atol=0.5)


def test_compiled_network():
    network, inputs = SmallCNN(), small_inputs(2)
    compiled = torch.compile(network, backend="eager")
    torch.testing.assert_close(
        CAM(compiled, network.features).attribute(inputs, 1),
        CAM(network, network.features).attribute(inputs, 1),
    )


def test_an_interrupt_that_comes_while_torch_has_the_mode_off_arrives():
    class Interrupted(SmallCNN):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            if torch.overrides._get_current_function_mode_stack():
                torch.overrides._pop_mode()  # as torch does before it calls the mode
                raise KeyboardInterrupt
            return outputs

    network = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        CAM(network, network.features).attribute(small_inputs(2), 1)
    assert not torch.overrides._get_current_function_mode_stack()
