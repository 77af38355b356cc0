"""Class activation maps that are a formula: by loops, by hand, as other packages have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution
from torch import Tensor, nn

from captum_groupcam import (
    KPCACAM,
    EigenCAM,
    EigenGradCAM,
    ElementWiseCAM,
    GradCAM,
    HiResCAM,
    XGradCAM,
)
from captum_groupcam.attr.maps import principal_component
from tests.toy_networks import SmallCNN, classifier, images, real_image, scaled


class Deep(nn.Module):
    """A head after which gradients differ from one position to the next, in double precision."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        self.inner = classifier(dims, channels=12, seed=2).double()
        self.features = self.inner.features

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner.head(self.features(inputs).square())


def of_layer(network: nn.Module, inputs: Tensor, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Activations and gradients, K x spatial, by hand."""
    found = {}

    def keep(_module, _args, output):
        output.retain_grad()
        found["activations"] = output

    handle = network.features.register_forward_hook(keep)
    network(inputs)[0, target].backward()
    handle.remove()
    activations = found["activations"]
    return activations[0].detach().numpy(), activations.grad[0].numpy()


def hires_cam(activations, gradients):
    total = np.zeros(activations.shape[1:])
    for channel, place in np.ndindex(len(activations), total.size):
        at = np.unravel_index(place, total.shape)
        total[at] += activations[channel][at] * gradients[channel][at]
    return total


def element_wise_cam(activations, gradients):
    total = np.zeros(activations.shape[1:])
    for channel, place in np.ndindex(len(activations), total.size):
        at = np.unravel_index(place, total.shape)
        total[at] += max(activations[channel][at] * gradients[channel][at], 0)
    return total


def x_grad_cam(activations, gradients):
    total = np.zeros(activations.shape[1:])
    for values, slopes in zip(activations, gradients, strict=True):
        weight = 0
        for place in np.ndindex(*values.shape):
            if values[place]:  # a dead channel has a sum of zero
                weight += values[place] / values.sum() * slopes[place]
        total += weight * values
    return total


def first_component(maps):
    """By power iteration on the covariance of the channels."""
    points = maps.reshape(len(maps), -1).T
    points = points - points.mean(0)
    axis = np.ones(points.shape[1])
    for _ in range(5000):
        axis = points.T @ (points @ axis)
        axis /= np.linalg.norm(axis)
    return (points @ axis * (1 if axis.sum() >= 0 else -1)).reshape(maps.shape[1:])


def kernel_component(activations, _):
    """By the kernel of each pair of positions, in scikit-learn's coefficients."""
    points = activations.reshape(len(activations), -1).T
    points = points - points.mean(0)
    kernel = np.empty((len(points), len(points)))
    for one, other in np.ndindex(kernel.shape):
        kernel[one, other] = np.tanh(points[one] @ points[other] / len(activations) + 1)
    centred = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
    values, vectors = np.linalg.eigh(centred)
    found = np.sqrt(values[-1]) * vectors[:, -1]
    sign = 1 if np.cov(found, points.sum(1))[0, 1] >= 0 else -1
    return sign * found.reshape(activations.shape[1:])


NAIVE = {
    HiResCAM: hires_cam,
    ElementWiseCAM: element_wise_cam,
    XGradCAM: x_grad_cam,
    EigenCAM: lambda activations, _: first_component(activations),
    EigenGradCAM: lambda activations, gradients: first_component(activations * gradients),
    KPCACAM: kernel_component,
}


@pytest.mark.parametrize("method", NAIVE)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_is_the_loop(method, dims):
    network, inputs = Deep(dims), images(2, *(9, 10, 11)[:dims]).double()
    maps = method(network, network.features).attribute(inputs, [2, 4])
    for index, target in enumerate([2, 4]):
        expected = NAIVE[method](*of_layer(network, inputs[index : index + 1], target))
        assert expected.std() > 0.01
        np.testing.assert_allclose(maps[index, 0], expected, rtol=1e-6, atol=1e-6)


def test_by_hand():
    activations = torch.tensor([[[1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [-2.0, 1.0, 0.0]]])
    gradients = torch.tensor([[[2.0, -1.0, 5.0], [7.0, 7.0, 7.0], [1.0, 2.0, 3.0]]])
    expected = {
        HiResCAM: [2.0 - 2, -3.0 + 2, 0.0],
        ElementWiseCAM: [2.0, 2.0, 0.0],
        # (2 - 3) / 4 for the first channel, none for the dead one, (-2 + 2) / -1 for the last.
        XGradCAM: [-0.25, -0.75, 0.0],
    }
    for method, values in expected.items():
        found = method.formula(activations, gradients)
        torch.testing.assert_close(found, torch.tensor([[values]]))


def test_hires_cam_adds_up_to_the_output_of_a_linear_head():
    network, inputs = classifier(channels=6, seed=2).double(), images(2).double()
    maps = HiResCAM(network, network.features).attribute(inputs, [1, 3])
    with torch.no_grad():
        outputs = network(inputs)[[0, 1], [1, 3]] - network.head[-1].bias[[1, 3]]
    torch.testing.assert_close(maps.flatten(1).sum(1), outputs)


def test_the_principal_component_goes_along_with_the_sum_of_the_channels():
    maps = images(4, 5, 6, channels=7).double()
    found = principal_component(maps)
    sums = maps.sum(1, keepdim=True)
    assert ((sums - sums.mean((2, 3), keepdim=True)) * found).flatten(1).sum(1).min() > 0
    torch.testing.assert_close(found.mean((2, 3)), torch.zeros(4, 1).double())
    torch.testing.assert_close(principal_component(-maps), -found)
    # No direction has more variance.
    centred = (maps - maps.mean((2, 3), keepdim=True)).flatten(2)
    most = torch.linalg.eigvalsh(centred @ centred.mT)[:, -1]
    torch.testing.assert_close(found.flatten(1).square().sum(1), most)


def test_a_flat_layer_has_no_principal_component():
    assert not principal_component(torch.full((1, 3, 4, 4), 2.0)).any()


THEIRS = {
    HiResCAM: "HiResCAM",
    ElementWiseCAM: "GradCAMElementWise",
    XGradCAM: "XGradCAM",
    EigenCAM: "EigenCAM",
    EigenGradCAM: "EigenGradCAM",
    KPCACAM: "KPCA_CAM",
}


#: They have no sign; theirs have the one that LAPACK happens to return.
COMPONENTS = (EigenCAM, EigenGradCAM, KPCACAM)


def assert_equals_pytorch_grad_cam(method, network, **options):
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    image, theirs_of = real_image(), getattr(pytorch_grad_cam, THEIRS[method])
    with theirs_of(network, [network.features], **options) as extractor:
        theirs = torch.from_numpy(extractor(image, [ClassifierOutputTarget(2)])).double()
    signed = method(network, network.features).attribute(image, 2, **options)
    ours = [
        scaled(LayerAttribution.interpolate((sign * signed).relu(), (24, 24), "bilinear"))[:, 0]
        for sign in ((1, -1) if method in COMPONENTS else (1,))
    ]
    assert theirs.std() > 0.05
    assert min((one - theirs).abs().max() for one in ours) < 1e-4


@pytest.mark.parametrize("method", THEIRS)
@pytest.mark.parametrize("network", [SmallCNN(channels=12), Deep()], ids=["GAP", "deep"])
def test_equals_pytorch_grad_cam(method, network):
    assert_equals_pytorch_grad_cam(method, network)


@pytest.mark.parametrize("kernel", ["rbf", "poly", "cosine"])
def test_other_kernels_are_pytorch_grad_cams(kernel):
    assert_equals_pytorch_grad_cam(KPCACAM, Deep(), kernel=kernel)


def test_the_linear_kernel_is_eigen_cam():
    network, inputs = Deep(), images(2).double()
    expected = EigenCAM(network, network.features).attribute(inputs, 0)
    found = KPCACAM(network, network.features).attribute(inputs, 0, kernel="linear")
    torch.testing.assert_close(found, expected)


def test_a_flat_layer_has_no_kernel_component():
    network, flat = nn.Sequential(nn.Identity(), nn.Flatten()), torch.full((1, 3, 15, 15), 0.1)
    assert not KPCACAM(network, network[0]).attribute(flat, 0).any()


def test_a_kernel_that_there_is_not():
    network = SmallCNN()
    with pytest.raises(ValueError, match=r"kernel must be 'sigmoid', .* or 'linear', got 'tanh'"):
        KPCACAM(network, network.features).attribute(images(1).double(), 0, kernel="tanh")


def test_x_grad_cam_equals_torchcam():
    from torchcam.methods import XGradCAM as TorchcamXGradCAM

    network, image = Deep(), real_image()
    with TorchcamXGradCAM(network, network.features) as extractor:
        (theirs,) = extractor(2, network(image), normalized=False)
    ours = XGradCAM(network, network.features).attribute(image, 2, relu_attributions=True)
    torch.testing.assert_close(ours[:, 0], theirs.detach(), rtol=1e-4, atol=1e-4)


def test_what_differs_from_grad_cam_is_where_the_gradient_varies():
    network, image = SmallCNN(), real_image()  # behind global average pooling it does not
    expected = GradCAM(network, network.features).attribute(image, 2)
    for method in (HiResCAM, XGradCAM):
        torch.testing.assert_close(method(network, network.features).attribute(image, 2), expected)
    deep = Deep()
    expected = GradCAM(deep, deep.features).attribute(image, 2)
    for method in (HiResCAM, XGradCAM):
        found = method(deep, deep.features).attribute(image, 2)
        assert (found - expected).norm() > 0.05 * expected.norm()
