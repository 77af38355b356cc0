"""ShapleyCAM: by a Hessian written out, as pytorch-grad-cam has it, and on transformers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from captum.attr import LayerAttribution
from torch import nn

from captum_groupcam import GradCAM, ShapleyCAM
from captum_groupcam.networks.transformers import tokens_to_grid
from tests.toy_networks import (
    CONVOLUTIONS,
    classifier,
    images,
    real_image,
    scaled,
    seeded,
    small_vit,
)


def curved(dims: int = 2, channels: int = 4) -> nn.Module:
    """A head with curvature, in double precision."""

    def make() -> nn.Module:
        network = classifier(dims, channels=channels, seed=2)
        convolution = CONVOLUTIONS[dims](channels, channels, 3)
        network.head = nn.Sequential(convolution, nn.SiLU(), *network.head)
        return network.double().eval()

    return seeded(make, 4)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_is_the_equation_with_the_whole_hessian(dims):
    network, inputs = curved(dims), images(2, *(6, 8, 7)[:dims]).double()
    maps = ShapleyCAM(network, network.features).attribute(inputs, [1, 4])
    for index, target in enumerate([1, 4]):
        activations = network.features(inputs[index : index + 1]).detach()

        def score(maps, target=target):
            return network.head(maps)[0, target]

        gradients = torch.autograd.functional.jacobian(score, activations)
        hessian = torch.autograd.functional.hessian(score, activations)
        flat = activations.flatten()
        product = (hessian.view(len(flat), -1) @ flat).view_as(activations)
        assert product.abs().max() > 0.01
        weights = (gradients - product / 2).flatten(2).mean(2)
        expected = torch.einsum("nk,nk...->n...", weights, activations)
        torch.testing.assert_close(maps[index : index + 1, 0], expected)


def test_equals_pytorch_grad_cam():
    from pytorch_grad_cam import ShapleyCAM as PyTorchGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, image = curved(channels=12), real_image()
    with PyTorchGradCAM(network, [network.features]) as extractor:
        theirs = torch.from_numpy(extractor(image, [ClassifierOutputTarget(2)])).double()
    ours = ShapleyCAM(network, network.features).attribute(image, 2, relu_attributions=True)
    ours = LayerAttribution.interpolate(ours, (24, 24), "bilinear")
    assert ours.std() > 0.001
    torch.testing.assert_close(scaled(ours)[:, 0], theirs, rtol=1e-4, atol=1e-4)
    plain = GradCAM(network, network.features).attribute(image, 2)
    assert (plain - ShapleyCAM(network, network.features).attribute(image, 2)).abs().max() > 1e-3


def test_behind_pieces_that_are_linear_it_is_grad_cam():
    network, inputs = classifier(seed=2), images(2, 14, 16)
    found = ShapleyCAM(network, network.features).attribute(inputs, 1)
    torch.testing.assert_close(found, GradCAM(network, network.features).attribute(inputs, 1))


def test_a_transformer_has_second_derivatives_too():
    network = seeded(small_vit).double().eval()
    nn.init.normal_(network.heads.head.weight, generator=torch.Generator().manual_seed(0))
    inputs, layer = images(2, 32, 32).double(), network.encoder.layers[1].ln_1
    seen = {}
    layer.register_forward_hook(lambda _m, _a, output: seen.setdefault("tokens", output))
    to_grid = partial(tokens_to_grid, grid=(4, 4))
    found = ShapleyCAM(network, layer).attribute(inputs, 3, reshape_transform=to_grid)
    tokens = seen["tokens"].detach()

    def gradient(at):
        leaf = at.clone().requires_grad_()
        handle = layer.register_forward_hook(lambda _m, _a, _o: leaf)
        network(inputs)[:, 3].sum().backward()
        handle.remove()
        return leaf.grad

    step = 1e-5  # H A by differences of gradients
    product = (gradient(tokens * (1 + step)) - gradient(tokens * (1 - step))) / (2 * step)
    weights = to_grid(gradient(tokens) - product / 2).mean((2, 3))
    expected = torch.einsum("nk,nkhw->nhw", weights, to_grid(tokens))
    assert product.abs().max() > 1e-3
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-5, atol=1e-7)


def test_a_layer_that_runs_twice_needs_its_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = curved()

        def forward(self, inputs):
            return self.inner.head(self.inner.features(inputs) + self.inner.features(inputs * 2))

    network, inputs = Twice().eval(), images(1).double()
    method = ShapleyCAM(network, network.inner.features)
    with pytest.raises(ValueError, match="runs 2 times in one pass"):
        method.attribute(inputs, 1)
    assert method.attribute(inputs, 1, layer_call=1).any()
