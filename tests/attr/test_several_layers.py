"""Several layers in one map: by hand, and as pytorch-grad-cam and torchcam have it."""

from __future__ import annotations

import pytest
import torch
from captum.attr import (
    LayerAttribution,
    LayerConductance,
    LayerGradCam,
    LayerIntegratedGradients,
)
from torch import nn

from captum_groupcam import CAM, RISE, AblationCAM, GradCAM, GradCAMPlusPlus, GroupCAM, LayerCAM
from captum_groupcam.attr.functional.several_layers import merge_maps
from captum_groupcam.attr.several_layers import SeveralLayers
from captum_groupcam.networks.target_layer import TargetLayer
from tests.toy_networks import (
    FORMULAS,
    SmallCNN,
    TokenCNN,
    classifier,
    images,
    real_image,
    scaled,
    small_inputs,
)

MERGES = {
    "mean": lambda a, b: (a + b) / 2,
    "maximum": torch.maximum,
    "product": lambda a, b: a * b,
}


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("method", [*(m for m in FORMULAS if m is not CAM), GroupCAM, LayerGradCam])
def test_is_the_maps_of_the_layers_merged(method, merge):
    network, inputs = classifier(seed=2).double(), images(2, 14, 16).double()
    layers = [network.features[0], network.features]
    found = SeveralLayers(method, network, layers).attribute(inputs, [4, 2], merge=merge)
    maps = []
    for layer in layers:
        one = method(network, layer).attribute(inputs, [4, 2]).detach().relu()
        one = scaled(one).nan_to_num()  # a map without positive values
        maps.append(LayerAttribution.interpolate(one, (14, 16), "bilinear"))
    torch.testing.assert_close(found, MERGES[merge](*maps))
    assert found.std() > 0.01


def test_mean_equals_pytorch_grad_cam():
    from pytorch_grad_cam import LayerCAM as PyTorchGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, image = SmallCNN(channels=12), real_image()
    layers = [network.features[1], network.features]
    with PyTorchGradCAM(network, layers) as extractor:
        theirs = torch.from_numpy(extractor(image, [ClassifierOutputTarget(2)])).double()
    ours = SeveralLayers(LayerCAM, network, layers).attribute(image, 2)
    torch.testing.assert_close(scaled(ours)[:, 0], theirs, rtol=1e-4, atol=1e-4)


def test_maximum_and_product_equal_torchcam():
    torchcam = pytest.importorskip("torchcam", minversion="0.5")  # needs Python 3.11

    network, image = SmallCNN(channels=12), real_image()
    layers = [network.features[1], network.features]
    # Its LayerCAM scales maps by tanh before it merges them.
    with torchcam.methods.GradCAM(network, layers, input_shape=(3, 24, 24)) as extractor:
        theirs = extractor.fuse_cams(extractor(2, network(image)))
    ours = SeveralLayers(GradCAM, network, layers).attribute(image, 2, merge="maximum")
    torch.testing.assert_close(ours[:, 0], theirs.detach(), rtol=1e-4, atol=1e-4)
    with torchcam.methods.RefineCAM(
        network, layers, input_shape=(3, 24, 24), base_method=torchcam.methods.LayerCAM
    ) as extractor:
        (theirs,) = extractor(2, network(image))
    ours = SeveralLayers(LayerCAM, network, layers).attribute(image, 2, merge="product")
    torch.testing.assert_close(scaled(ours)[:, 0], theirs.detach(), rtol=1e-4, atol=1e-4)


def test_layers_say_how_they_are_read():
    network, inputs = TokenCNN().eval(), small_inputs(2)
    tokens = TargetLayer(
        network.tokens, reshape_transform=lambda t: t.transpose(1, 2).unflatten(2, (8, 8))
    )
    found = SeveralLayers(GradCAM, network, [network.inner.features, tokens]).attribute(inputs, 1)
    one = SeveralLayers(GradCAM, network, [network.inner.features]).attribute(inputs, 1)
    torch.testing.assert_close(found, one)


def test_tuple_has_a_map_at_the_resolution_of_each_input():
    network = classifier(seed=2)
    several = SeveralLayers(
        AblationCAM, lambda a, b: network(a) + b, [network.features[0], network.features]
    )
    maps, nothing = several.attribute((images(2, 14, 16), torch.zeros(2, 1)), 1)
    assert maps.shape == (2, 1, 14, 16)
    assert torch.equal(nothing, torch.zeros(2, 1))


@pytest.mark.parametrize("dims", [1, 3])
def test_signals_and_volumes(dims):
    network, inputs = classifier(dims, seed=2), images(2, *(9, 10, 11)[:dims])
    several = SeveralLayers(GradCAMPlusPlus, network, [network.features[0], network.features])
    assert several.attribute(inputs, 1).shape == (2, 1, *inputs.shape[2:])


def test_errors():
    network, inputs = classifier(seed=2), images(1)
    with pytest.raises(ValueError, match="at least one layer"):
        SeveralLayers(GradCAM, network, []).attribute(inputs, 1)
    with pytest.raises(ValueError, match="'mean', 'maximum' or 'product', got 'sum'"):
        SeveralLayers(GradCAM, network, [network.features]).attribute(inputs, 1, merge="sum")
    with pytest.raises(ValueError, match="at least one map"):
        merge_maps([], (3,))


def test_constructor_stores_and_does_nothing_else():
    several = SeveralLayers(GradCAM, nn.Identity(), [nn.Identity()])
    assert vars(several).keys() == {"forward_func", "method", "layers", "device_ids"}


def test_what_is_no_list_of_layers_or_no_method_of_one():
    network = classifier(channels=6, seed=2)
    for method, layers, words in (
        (GradCAM, network.features, "layers must be a list of modules, got Sequential"),
        (GradCAM(network, network.features), [network.features], "must be a class .* GradCAM"),
        (RISE, [network.features], "must be a class .* RISE"),
    ):
        with pytest.raises(TypeError, match=words):
            SeveralLayers(method, network, layers).attribute(images(2), 1)


class TwoInputs(nn.Module):
    """An encoder of both images together, one of the first, and one that both share."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.both = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.shared = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.later = nn.Sequential(nn.Conv2d(8, 6, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(6, 5)

    def forward(self, a, b, scale, shift=0.0):
        maps = self.both(torch.cat([a, b], 1)) + self.first(a) + self.shared(a) - self.shared(b)
        return self.head(self.later(maps).mean((2, 3))) * scale + shift


@pytest.mark.parametrize("merge", MERGES)
def test_captums_class_of_several_inputs(merge):
    network = TwoInputs().eval()
    inputs = images(2, 14, 16), images(2, 14, 16).flip(3), torch.tensor([[1.0], [2.0]])
    layers, shift = [network.both, network.later], torch.tensor([[1.0], [3.0]])
    maps = SeveralLayers(LayerGradCam, network, layers).attribute(
        inputs, [4, 2], shift, merge=merge
    )
    alone = []
    for layer in layers:
        one = LayerGradCam(network, layer).attribute(inputs, [4, 2], shift).detach().relu()
        one = scaled(one).nan_to_num()
        alone.append(LayerAttribution.interpolate(one, (14, 16), "bilinear"))
    expected = MERGES[merge](*alone)
    torch.testing.assert_close(maps, (expected, expected, torch.zeros(2, 1)))
    ours = SeveralLayers(GradCAM, network, layers).attribute(inputs, [4, 2], shift, merge=merge)
    torch.testing.assert_close(maps, ours)


def test_captums_class_where_it_would_answer_wrongly():
    network = TwoInputs().eval()
    inputs = images(2, 14, 16), images(2, 14, 16).flip(3), torch.ones(2, 1)
    named = TargetLayer(network.both, reshape_transform=lambda maps: maps)
    for method, layer, words in (
        (LayerGradCam, network.first, "does not depend on input 1, whose map"),
        (LayerGradCam, network.shared, "runs 2 times in one pass"),
        (LayerGradCam, named, "Captum's LayerGradCam takes no reshape_transform"),
        (LayerConductance, network.both, r"LayerConductance gives \(2, 8, 14, 16\)"),
        (LayerIntegratedGradients, network.both, r"gives \(2, 8, 14, 16\)"),
    ):
        with pytest.raises(ValueError, match=words):
            SeveralLayers(method, network, [layer, network.later]).attribute(inputs, 1)
    with pytest.raises(TypeError, match="takes baselines after the inputs, not the target"):
        SeveralLayers(LayerIntegratedGradients, network, [network.later]).attribute(inputs, 1, 2.0)


def test_the_target_of_captums_class_is_no_baseline():
    """After the inputs it takes baselines, where others take the target."""

    class OneChannel(LayerIntegratedGradients):
        def attribute(self, inputs, baselines=None, target=None, **options):
            maps = super().attribute(inputs, baselines, target, **options)
            return maps.sum(1, keepdim=True)

    network, inputs = classifier(seed=2), images(2, 14, 16)
    found = SeveralLayers(OneChannel, network, [network.features]).attribute(inputs, 3)
    one = LayerIntegratedGradients(network, network.features).attribute(inputs, target=3)
    one = scaled(one.detach().sum(1, keepdim=True).relu())
    expected = LayerAttribution.interpolate(one, (14, 16), "bilinear")
    torch.testing.assert_close(found, expected)
