from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution
from torch import nn

from captum_groupcam import LayerCAM
from tests.toy_networks import SmallCNN, classifier, images, real_image, scaled


def naive_layer_cam(network: nn.Module, inputs: torch.Tensor, target: int) -> np.ndarray:
    """Each position of each channel times its own gradient, where that is positive."""
    activations = network.features(inputs)
    activations.retain_grad()
    network.head(activations)[0, target].backward()
    gradients = activations.grad[0].numpy()
    total = np.zeros(activations.shape[2:])
    for channel, values in enumerate(activations[0].detach().numpy()):
        for place in np.ndindex(*values.shape):
            if gradients[channel][place] > 0:
                total[place] += gradients[channel][place] * values[place]
    return total


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_is_the_loop_over_positions(dims):
    network, inputs = classifier(dims, seed=2), images(2, *(9, 10, 11)[:dims])
    maps = LayerCAM(network, network.features).attribute(inputs, [2, 4])
    for index, target in enumerate([2, 4]):
        expected = naive_layer_cam(network, inputs[index : index + 1], target)
        assert expected.std() > 0.1
        np.testing.assert_allclose(maps[index, 0], expected, rtol=1e-4, atol=1e-4)


def test_negative_gradients_add_nothing_and_negative_activations_do():
    activations = torch.tensor([[[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]]])
    gradients = torch.tensor([[[2.0, 1.0, -1.0], [0.0, -3.0, 0.5]]])
    expected = torch.tensor([[[2.0, -2.0, -3.0]]])
    torch.testing.assert_close(LayerCAM.formula(activations, gradients), expected)


@pytest.mark.parametrize("layer", ["features", "features.1"])
def test_equals_pytorch_grad_cam(layer):
    from pytorch_grad_cam import LayerCAM as PyTorchGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, image = SmallCNN(channels=12), real_image()
    module = network.get_submodule(layer)
    with PyTorchGradCAM(network, [module]) as extractor:
        theirs = extractor(image, [ClassifierOutputTarget(2)])
    ours = LayerCAM(network, module).attribute(image, 2, relu_attributions=True)
    ours = LayerAttribution.interpolate(ours, (24, 24), "bilinear")
    assert ours.std() > 0
    torch.testing.assert_close(
        scaled(ours)[:, 0], torch.from_numpy(theirs).double(), rtol=1e-4, atol=1e-4
    )
