from __future__ import annotations

import importlib.util
import logging

import pytest
import torch
from captum.attr import LayerAttribution
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from captum_groupcam import GroupCAM
from captum_groupcam.attr.consensus import ConsensusGroupCAM
from captum_groupcam.attr.grad_cam import GradCAMPlusPlus
from captum_groupcam.attr.rise import RISE
from captum_groupcam.attr.score_cam import ScoreCAM
from captum_groupcam.insights import (
    InsightsMethod,
    LayerFinder,
    Registration,
    offered,
    register,
    unregister,
)
from captum_groupcam.networks.layers import find_layer
from captum_groupcam.networks.target_layer import TargetLayer


@pytest.fixture
def image(noise: Tensor) -> Tensor:
    return noise[:1]


def explain(name: str, model: nn.Module, inputs: tuple[Tensor, ...], layer=find_layer, **options):
    """Calls a method as Insights does."""
    registration = Registration(offered()[name], layer)
    cls = type("Registered", (InsightsMethod,), {"registration": registration})
    return cls.attribute.__wrapped__(cls(model), inputs, additional_forward_args=None, **options)


OPTIONS = {
    "Group-CAM": {"n_groups": 4},
    "Consensus Group-CAM": {"n_groups": 4},
    "Score-CAM": {"weighting": "increase"},
    "Grad-CAM++": {},
    "RISE": {"n_masks": 40},
}


def expected(name: str, model: nn.Module, image: Tensor, target: int) -> Tensor:
    if name == "Group-CAM":
        return GroupCAM(model, model.relu).attribute(image, target, n_groups=4)
    if name == "Consensus Group-CAM":
        return ConsensusGroupCAM(model, model.relu).attribute(image, target, n_groups=4)
    if name == "Score-CAM":
        return ScoreCAM(model, model.relu).attribute(image, target, weighting="increase")
    if name == "RISE":
        return RISE(model).attribute(image, target=target, n_masks=40)
    assert name == "Grad-CAM++"
    maps = GradCAMPlusPlus(model, model.relu).attribute(image, target)
    return LayerAttribution.interpolate(maps, image.shape[2:], "bilinear")


@pytest.mark.parametrize("name", OPTIONS)
def test_what_insights_draws_is_the_map_of_the_method(name, model, image):
    target = torch.tensor(int(model(image).argmax()))
    (attributions,) = explain(name, model, (image,), target=target, **OPTIONS[name])
    assert attributions.shape == image.shape
    torch.testing.assert_close(attributions[:, 0], attributions[:, 2])
    reference = expected(name, model, image, int(target))
    assert reference.any()
    torch.testing.assert_close(attributions.sum(1, keepdim=True), reference)


class TestBaselines:
    """Insights passes zeros for a feature that has no baseline transform."""

    @pytest.fixture
    def maps(self, model, image):
        def maps(**options):
            return explain("Group-CAM", model, (image,), target=1, n_groups=4, **options)[0].sum(1)

        return maps

    @pytest.fixture
    def reference(self, model, image):
        def reference(baselines=None):
            method = GroupCAM(model, model.relu)
            return method.attribute(image, 1, n_groups=4, baselines=baselines).squeeze(1)

        return reference

    def test_zeros_stand_for_the_methods_own(self, maps, reference, image):
        given = maps(baselines=(torch.zeros_like(image),))
        torch.testing.assert_close(given, reference())
        assert not torch.allclose(given, reference(0))

    def test_zeros_can_be_meant(self, maps, reference, image):
        given = maps(baselines=(torch.zeros_like(image),), baseline="feature")
        torch.testing.assert_close(given, reference(0))

    def test_a_features_own_is_used(self, maps, reference, image):
        pale = image / 2
        torch.testing.assert_close(maps(baselines=(pale,)), reference(pale))
        assert not torch.allclose(reference(pale), reference())


class TestLayer:
    @pytest.mark.parametrize(
        "layer",
        [
            lambda model, inputs: model.features,
            lambda model, inputs: TargetLayer(model.relu, "relu", True),
        ],
        ids=["module", "input of a layer"],
    )
    def test_of_a_finder(self, layer: LayerFinder, model, image):
        (attributions,) = explain("Group-CAM", model, (image,), layer, target=1, n_groups=4)
        reference = GroupCAM(model, model.features).attribute(image, 1, n_groups=4)
        torch.testing.assert_close(attributions.sum(1, keepdim=True), reference)
        behind = GroupCAM(model, model.relu).attribute(image, 1, n_groups=4)
        assert not torch.allclose(reference, behind)

    def test_given(self, model, image):
        layer = model.features[0]
        (attributions,) = explain("Group-CAM", model, (image,), layer, target=1, n_groups=4)
        reference = GroupCAM(model, layer).attribute(image, 1, n_groups=4)
        torch.testing.assert_close(attributions.sum(1, keepdim=True), reference)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_feature_without_positions_gets_zeros(name, model, image):
    shift = torch.tensor([[0.0, 0.5, 0.0, 1.0, 0.0]])
    baselines = (torch.zeros_like(image), torch.zeros_like(shift))
    attributions = explain(
        name, model, (image, shift), target=1, baselines=baselines, **OPTIONS[name]
    )
    assert [a.shape for a in attributions] == [image.shape, shift.shape]
    assert attributions[0].any()
    assert not attributions[1].any()


def test_an_error_reaches_the_log(model, image, caplog):
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(ValueError, match="not called in the forward pass"),
    ):
        explain("Group-CAM", model, (image,), nn.ReLU(), target=1)
    assert "Group-CAM failed in Captum Insights" in caplog.text
    assert "not called in the forward pass" in caplog.text


@pytest.mark.filterwarnings("ignore:The maps of samples")
def test_a_map_of_zeros_warns(model, image):
    nn.init.zeros_(model.head.weight)
    with pytest.warns(UserWarning, match="map of Group-CAM is zero, and Insights cannot draw"):
        explain("Group-CAM", model, (image,), target=1)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"Unknown methods \['KAM'\]: expected some of \['Group-"):
        register(methods=["RISE", "KAM"])
    with pytest.raises(
        TypeError, match=r"layer must be a torch\.nn\.Module or a function .* got str"
    ):
        register(layer="features")


@pytest.mark.skipif(
    importlib.util.find_spec("captum.insights") is not None, reason="this captum has Insights"
)
@pytest.mark.parametrize("call", [register, unregister])
def test_without_insights_the_error_says_what_to_install(call):
    with pytest.raises(ImportError, match=r"pip install 'captum_groupcam\[insights\]'") as caught:
        call()
    assert "environment of its own" in str(caught.value)
    assert "captum 0.9 dropped" in str(caught.value)


@pytest.mark.parametrize("name", ["Group-CAM", "Consensus Group-CAM", "Score-CAM", "Grad-CAM++"])
def test_transformers_are_explained_on_their_grid(name: str) -> None:
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32, "num_classes": 5}
    vit = VisionTransformer(image_size=32, patch_size=8, **sizes).eval()
    torch.nn.init.normal_(vit.heads.head.weight)
    images = torch.rand(1, 3, 32, 32)
    options = OPTIONS[name]
    (drawn,) = explain(name, vit, (images,), target=4, **options)
    found = find_layer(vit, images)
    maps = (
        offered()[name]
        .attribution(vit, found.module)
        .attribute(images, 4, reshape_transform=found.reshape_transform, **options)
    )
    maps = LayerAttribution.interpolate(maps, images.shape[2:], "bilinear")
    assert maps.any()
    torch.testing.assert_close(drawn.sum(1, keepdim=True), maps, check_dtype=False)
