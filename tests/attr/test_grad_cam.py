from __future__ import annotations

import inspect

import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import nn

from captum_groupcam import GradCAM, GradCAMPlusPlus
from captum_groupcam.attr.grad_cam import channel_weights
from tests.toy_networks import SmallCNN, real_image, scaled, small_inputs


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_grad_cam_is_captums(dims, relu):
    network = SmallCNN(dims)
    inputs, targets = small_inputs(3, dims, 12), [0, 1, 4]
    for layer, at_input in [(network.features[2], False), (network.features, True)]:
        call = (inputs, targets, None, at_input, relu)
        expected = LayerGradCam(network, layer).attribute(*call).detach()
        assert expected.min() < 0 or relu
        torch.testing.assert_close(GradCAM(network, layer).attribute(*call), expected)


def test_grad_cam_begins_with_the_arguments_of_captums():
    ours, theirs = (
        list(inspect.signature(cls.attribute).parameters.values())[:6]
        for cls in (GradCAM, LayerGradCam)
    )
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


def test_grad_cam_is_the_sum_by_mean_gradients():
    activations = torch.tensor([[[[1.0, 2.0], [0.0, 3.0]], [[4.0, 0.0], [1.0, 1.0]]]])
    gradients = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]], [[0.0, 0.0], [-2.0, 0.0]]]])
    expected = torch.tensor([[[[1 - 2.0, 2.0], [0 - 0.5, 3 - 0.5]]]])
    torch.testing.assert_close(GradCAM.formula(activations, gradients), expected)


def naive_weights(activations, head, target):
    """Eqs. 12 and 13 with the derivatives of Y = exp(S) themselves, a position at a time."""
    activations = activations.clone().requires_grad_()
    score = head(activations)[0, target].exp()
    (first,) = torch.autograd.grad(score, activations, create_graph=True)
    weights = torch.zeros(activations.shape[1], dtype=activations.dtype)
    for channel in range(activations.shape[1]):
        total = activations[0, channel].sum()
        for row in range(activations.shape[2]):
            for column in range(activations.shape[3]):
                at = (0, channel, row, column)
                second = torch.autograd.grad(first[at], activations, create_graph=True)[0]
                third = torch.autograd.grad(second[at], activations, retain_graph=True)[0]
                alpha = second[at] / (2 * second[at] + total * third[at])
                weights[channel] += (alpha * first[at].relu()).item()
    return weights / score.item()  # the factor exp(S), one for all channels


@pytest.mark.parametrize("target", [0, 3])
def test_weights_are_the_derivatives_of_the_exponential_score(target):
    network = SmallCNN(channels=4)
    activations = network.features(small_inputs(1, size=9)).detach()

    def head(maps):
        return network.classifier(network.pooling(maps).flatten(1))

    expected = naive_weights(activations, head, target)
    gradients = network.classifier.weight[target].detach()[None, :, None, None] / 9
    weights = channel_weights(activations, gradients.expand_as(activations))
    assert weights.max() > 0
    torch.testing.assert_close(weights[0], expected)


def test_positions_without_a_value_add_nothing():
    # 2 + sum(A) g = 0 at the first position, and no gradient at the second.
    activations = torch.tensor([[[-1.0, -1.0, 1.0]]])
    gradients = torch.tensor([[[2.0, 0.0, 4.0]]])
    expected = 4.0 / (2 + -1.0 * 4.0)
    torch.testing.assert_close(channel_weights(activations, gradients), torch.tensor([[expected]]))


def steep(network: SmallCNN) -> SmallCNN:
    """With gradients beside which the epsilons of other implementations vanish."""
    with torch.no_grad():
        network.classifier.weight *= 1e4
    return network


class Deep(nn.Module):
    """A head after which gradients differ from one position to the next."""

    def __init__(self):
        super().__init__()
        self.inner = steep(SmallCNN(channels=12))
        self.features = self.inner.features
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.mixing = nn.Conv2d(12, 12, 3, stride=2).double()
        self.eval()

    def forward(self, inputs):
        maps = self.mixing(self.features(inputs)).relu()
        return self.inner.classifier(maps.mean((2, 3)))


@pytest.mark.parametrize("network", [steep(SmallCNN(channels=12)), Deep()], ids=["GAP", "deep"])
def test_equals_pytorch_grad_cam(network):
    # Its variant: the closed form of eq. 19 with an epsilon of 1e-6. (torchcam 0.5 divides
    # a copy, so that alpha stays the square of the gradient: another method.)
    from pytorch_grad_cam import GradCAMPlusPlus as PyTorchGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    image = real_image()
    with PyTorchGradCAM(network, [network.features]) as extractor:
        theirs = extractor(image, [ClassifierOutputTarget(2)])
    ours = GradCAMPlusPlus(network, network.features).attribute(image, 2, None, False, True)
    ours = LayerAttribution.interpolate(ours, (24, 24), "bilinear")
    assert ours.std() > 0
    torch.testing.assert_close(
        scaled(ours)[:, 0], torch.from_numpy(theirs).double(), rtol=1e-4, atol=1e-4
    )


def test_small_gradients_need_no_epsilon():
    network = SmallCNN(channels=12)
    inputs = small_inputs(1)
    with torch.no_grad():
        network.classifier.weight *= 1e-12
    maps = GradCAMPlusPlus(network, network.features).attribute(inputs, 2)
    # With sum(A) g next to nothing every position weighs half of its gradient.
    gradients = network.classifier.weight[2].relu() / 64
    activations = network.features(inputs)
    expected = (activations * (gradients * 64 / 2).view(1, -1, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(maps * 1e12, expected.detach() * 1e12)
