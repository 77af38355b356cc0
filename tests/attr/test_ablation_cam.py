"""Ablation-CAM: by a loop over channels, as pytorch-grad-cam has it, and on transformers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from captum.attr import LayerAttribution

from captum_groupcam import AblationCAM
from captum_groupcam.networks.transformers import tokens_to_grid
from tests.toy_networks import Recorder, classifier, images, real_image, scaled, seeded, small_vit


def naive_ablation_cam(network, sample, target):
    """One channel after the other, in the head alone."""
    with torch.no_grad():
        activations = network.features(sample)
        whole = network.head(activations)[0, target]
        total = torch.zeros_like(activations[:, :1])
        for channel in range(activations.shape[1]):
            without = activations.clone()
            without[:, channel] = 0
            drop = whole - network.head(without)[0, target]
            total += drop * activations[:, channel : channel + 1]
        return total


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("size", [None, 1, 3])
def test_is_the_loop_over_channels(dims, size):
    network, inputs = classifier(dims, seed=2).double(), images(2, *(9, 10, 11)[:dims]).double()
    found = AblationCAM(network, network.features).attribute(
        inputs, [2, 4], internal_batch_size=size
    )
    for index, target in enumerate([2, 4]):
        at = slice(index, index + 1)
        expected = naive_ablation_cam(network, inputs[at], target)
        assert expected.std() > 0.05
        torch.testing.assert_close(found[at], expected)


def test_equals_pytorch_grad_cam(capfd):
    from pytorch_grad_cam import AblationCAM as PyTorchGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, image = classifier(channels=12, seed=2), real_image().float()
    target = int(network(image).argmax())  # a positive logit: theirs divides by it
    with PyTorchGradCAM(network, [network.features]) as extractor:
        theirs = torch.from_numpy(extractor(image, [ClassifierOutputTarget(target)]))
    ours = AblationCAM(network, network.features).attribute(image, target, relu_attributions=True)
    ours = LayerAttribution.interpolate(ours, (24, 24), "bilinear")
    assert ours.std() > 0.01
    torch.testing.assert_close(scaled(ours)[:, 0], theirs, rtol=1e-4, atol=1e-4)
    capfd.readouterr()  # its progress bar


def test_channels_that_are_zero_cost_no_pass():
    network, inputs = classifier(seed=2), images(1)
    with torch.no_grad():
        network.features[2].weight[1] = 0
        network.features[2].bias[1] = -1.0
        active = int(network.features(inputs).flatten(2).any(2).sum())
    assert active < 8
    recorder = Recorder(network)
    AblationCAM(recorder, network.features).attribute(inputs, 1, internal_batch_size=3)
    assert sum(recorder.batch_sizes) == 2 + active
    assert max(recorder.batch_sizes) <= 3


def test_the_sign_does_not_depend_on_that_of_the_logit():
    network, inputs = classifier(seed=2).double(), images(1).double()
    before = AblationCAM(network, network.features).attribute(inputs, 1)
    with torch.no_grad():
        network.head[-1].bias[1] -= 1000
    torch.testing.assert_close(
        AblationCAM(network, network.features).attribute(inputs, 1), before, rtol=1e-6, atol=1e-6
    )


def test_channels_of_a_transformer_are_set_to_zero_on_the_grid_and_class_tokens_stay():
    network = seeded(small_vit).double().eval()
    torch.nn.init.normal_(network.heads.head.weight, generator=torch.Generator().manual_seed(0))
    inputs, layer = images(2, 32, 32).double(), network.encoder.layers[1].ln_1
    found = AblationCAM(network, layer).attribute(
        inputs, 3, reshape_transform=partial(tokens_to_grid, grid=(4, 4))
    )
    seen = {}
    layer.register_forward_hook(lambda _m, _a, output: seen.update(tokens=output))
    with torch.no_grad():
        whole = network(inputs)[:, 3]
        tokens, expected = seen["tokens"], torch.zeros(2, 1, 4, 4).double()
        for channel in range(16):
            without = tokens.clone()
            without[:, 1:, channel] = 0
            handle = layer.register_forward_hook(lambda _m, _a, _o, other=without: other)
            drop = whole - network(inputs)[:, 3]
            handle.remove()
            grid = tokens[:, 1:, channel].view(2, 1, 4, 4)
            expected += drop.view(2, 1, 1, 1) * grid
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected)


def test_one_call_of_a_layer_that_runs_twice():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = classifier(seed=2).double()
            self.mixing = seeded(lambda: torch.nn.Conv2d(8, 8, 3, padding=1)).double()

        def forward(self, inputs):
            maps = self.mixing(self.inner.features(inputs)).relu()
            return self.inner.head(self.mixing(maps))

    network, inputs = Twice().eval(), images(1).double()
    found = AblationCAM(network, network.mixing).attribute(inputs, 3, layer_call=1)
    with torch.no_grad():
        first = network.mixing(network.inner.features(inputs)).relu()
        activations = network.mixing(first)
        whole = network.inner.head(activations)[0, 3]
        expected = torch.zeros_like(activations[:, :1])
        for channel in range(8):
            without = activations.clone()
            without[:, channel] = 0
            drop = whole - network.inner.head(without)[0, 3]
            expected += drop * activations[:, channel : channel + 1]
    torch.testing.assert_close(found, expected)
