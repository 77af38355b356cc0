"""What all methods share that are a formula of a layer, whatever the formula."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam, NoiseTunnel
from torch import nn

from captum_groupcam import CAM, ElementWiseCAM, GradCAM
from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.masking.targets import TargetError
from tests.toy_networks import FORMULAS, Recorder, SmallCNN, TokenCNN, small_inputs

#: Their maps have no negative values.
POSITIVE = (ElementWiseCAM,)
every_formula = pytest.mark.parametrize("method", FORMULAS)


@every_formula
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_is_at_the_resolution_of_the_layer_like_grad_cam(method, dims):
    network = SmallCNN(dims)
    inputs = small_inputs(2, dims, 12)
    maps = method(network, network.features).attribute(inputs, [0, 1])
    assert maps.shape == LayerGradCam(network, network.features).attribute(inputs, [0, 1]).shape
    assert maps.shape == (2, 1, *(4,) * dims)
    larger = LayerAttribution.interpolate(maps[:, :, :4], (12,) * dims)
    assert larger.shape == (2, 1, *(12,) * dims)


@every_formula
def test_input_of_the_layer_and_relu(method):
    network, inputs = SmallCNN(), small_inputs(2)
    network.features[3] = nn.Identity()  # activations of both signs
    signed = method(network, network.features).attribute(inputs, 3)
    assert signed.max() > 0
    assert signed.min() < 0 or method in POSITIVE
    positive = method(network, network.features).attribute(inputs, 3, None, False, True)
    torch.testing.assert_close(positive, signed.relu())
    at_input = method(network, network.pooling).attribute(inputs, 3, None, True)
    torch.testing.assert_close(at_input, signed)


@every_formula
def test_tokens_become_maps(method):
    network, inputs = TokenCNN().eval(), small_inputs(2)
    maps = method(network, network.tokens).attribute(
        inputs, 1, reshape_transform=lambda tokens: tokens.transpose(1, 2).unflatten(2, (8, 8))
    )
    expected = method(network.inner, network.inner.features).attribute(inputs, 1)
    torch.testing.assert_close(maps, expected)
    with pytest.raises(ValueError, match=r"at least 2 spatial dimensions.*reshape_transform"):
        method(network, network.tokens).attribute(inputs, 1)


@every_formula
def test_batch_is_its_samples_and_asked_in_parts(method):
    network, inputs = SmallCNN(), small_inputs(5)
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.double)
    recorder = Recorder(network)

    def forward(x, factor):
        return recorder(x) * factor.unsqueeze(1)

    targets = [0, 1, 2, 3, 4]
    if method is CAM:  # the output is what the linear layer gives
        forward, scale = (lambda x, factor: recorder(x)), torch.ones(5)
    explained = method(forward, network.features)
    together = explained.attribute(inputs, targets, scale, internal_batch_size=2)
    assert max(recorder.batch_sizes) == 2
    for index, target in enumerate(targets):
        one = slice(index, index + 1)
        alone = explained.attribute(inputs[one], target, scale[one])
        torch.testing.assert_close(together[one], alone)


@every_formula
def test_a_wrong_target_is_an_error_and_one_pass_is_enough_to_see_it(method):
    recorder = Recorder(SmallCNN())
    with pytest.raises(TargetError, match="out of range"):
        method(recorder, recorder.network.features).attribute(small_inputs(2), [0, 5])
    assert len(recorder.calls) <= 2 if method is CAM else 1


@every_formula
def test_tuple_has_a_map_for_each_input_with_positions(method):
    network, inputs = SmallCNN(), small_inputs(2)
    offset = torch.zeros(2, 1, dtype=torch.double)
    explained = method(lambda a, b, c: network((a + b) / 2 + c.sum() * 0), network.features)
    maps = explained.attribute((inputs, inputs, offset), 1)
    expected = method(network, network.features).attribute(inputs, 1)
    assert len(maps) == 3
    torch.testing.assert_close(maps[0], expected)
    torch.testing.assert_close(maps[1], expected)
    assert torch.equal(maps[2], torch.zeros_like(offset))


def test_layer_may_have_more_dimensions_than_the_input():
    """A network that makes a picture of a signal, as spectrograms are."""

    class Pictured(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = SmallCNN()

        def forward(self, signal):
            return self.inner(signal.unflatten(2, (12, 12)))

    network, signals = Pictured().eval(), small_inputs(2, 1, 144)
    maps = GradCAM(network, network.inner.features).attribute(signals, 1)
    expected = LayerGradCam(network, network.inner.features).attribute(signals, 1)
    torch.testing.assert_close(maps, expected.detach())


@every_formula
def test_inside_noise_tunnel(method):
    network, inputs = SmallCNN(), small_inputs(2)
    tunnel = NoiseTunnel(method(lambda x: network(x.double()), network.features))
    maps = tunnel.attribute(inputs.float(), nt_samples=3, stdevs=1e-7, target=[1, 2])
    expected = method(network, network.features).attribute(inputs, [1, 2])
    torch.testing.assert_close(maps, expected, atol=1e-4, rtol=1e-4)


def test_a_new_method_is_its_formula():
    class Strongest(LayerFormula):
        @staticmethod
        def formula(activations, gradients):
            return (activations * gradients).amax(1, keepdim=True)

    network, inputs = SmallCNN(), small_inputs(2)
    (maps,) = Strongest(network, network.features).attribute((inputs,), [1, 2])
    gradients = network.classifier.weight[[1, 2]].detach() / 64
    expected = (network.features(inputs).detach() * gradients[:, :, None, None]).amax(1)
    torch.testing.assert_close(maps[:, 0], expected)


def test_without_a_formula_is_an_error():
    network = SmallCNN()
    with pytest.raises(NotImplementedError, match="formula of activations and gradients"):
        LayerFormula(network, network.features).attribute(small_inputs(1), 0)
