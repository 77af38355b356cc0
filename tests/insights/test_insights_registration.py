"""The methods inside Captum Insights: its registry, its calculation and its notebook widget."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import visualization as viz
from PIL import Image
from torch import Tensor, nn

from captum_groupcam import GroupCAM
from captum_groupcam.insights import InsightsMethod, offered, register, unregister

pytest.importorskip(
    "captum.insights", reason="no Captum Insights: captum 0.8 has it, with its extra [insights]"
)

from captum.insights import AttributionVisualizer, Batch
from captum.insights.attr_vis.config import (
    ATTRIBUTION_METHOD_CONFIG,
    ATTRIBUTION_NAMES_TO_METHODS,
)
from captum.insights.attr_vis.features import ImageFeature
from captum.insights.attr_vis.server import namedtuple_to_dict
from captum.insights.attr_vis.widget import CaptumInsights

pytestmark = [
    # Insights does not know whether a method needs gradients.
    pytest.mark.filterwarnings("ignore:It looks like that the attribution for a gradient-based"),
    # It turns scores that have a graph into numbers.
    pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar"),
]

CLASSES = [f"class {index}" for index in range(5)]
OWN = dict(ATTRIBUTION_NAMES_TO_METHODS), dict(ATTRIBUTION_METHOD_CONFIG)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    yield
    unregister()
    assert (ATTRIBUTION_NAMES_TO_METHODS, ATTRIBUTION_METHOD_CONFIG) == OWN


@pytest.fixture
def visualizer(model: nn.Module, noise: Tensor) -> AttributionVisualizer:
    return AttributionVisualizer(
        models=model,
        classes=CLASSES,
        features=ImageFeature("Photo", baseline_transforms=None, input_transforms=None),
        dataset=[Batch(noise, torch.arange(4))],
    )


def request(visualizer: AttributionVisualizer, method: str, **arguments: object) -> dict:
    """What the page sends for Fetch: the values of its controls, some of them changed."""
    config = json.loads(json.dumps(visualizer.get_insights_config()))  # as it reaches the page
    values = {key: entry["value"] for key, entry in config["method_arguments"][method].items()}
    assert arguments.keys() <= values.keys()
    return {
        "attribution_method": method,
        "arguments": values | arguments,
        "prediction": "all",
        "classes": [],
    }


def pixels(png: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    return np.asarray(image).astype(int)


def drawing(map_: Tensor) -> np.ndarray:
    """The map as Insights' images are drawn."""
    figure, _ = viz.visualize_image_attr(
        map_[0].permute(1, 2, 0).numpy(),
        method="heat_map",
        sign="positive",
        cmap="Blues",
        use_pyplot=False,
    )
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return pixels(base64.b64encode(file.getvalue()).decode())


def group_cam(model: nn.Module, image: Tensor, target: int, **options: object) -> Tensor:
    return GroupCAM(model, model.relu).attribute(image, target, **options)


def assert_drawn(output: Any, map_: Tensor) -> None:
    (feature,) = output.feature_outputs
    reference = drawing(map_)
    assert np.ptp(reference) > 100
    assert np.abs(pixels(feature.modified) - reference).max() <= 2


class TestRegistry:
    def test_until_unregister(self):
        register()
        names = list(ATTRIBUTION_NAMES_TO_METHODS)
        assert names == [*OWN[0], *offered()]
        assert set(offered()) <= set(ATTRIBUTION_METHOD_CONFIG)
        unregister()
        assert list(ATTRIBUTION_NAMES_TO_METHODS) == list(OWN[0])

    def test_for_a_block(self):
        with register(methods=["RISE"]):
            assert set(ATTRIBUTION_NAMES_TO_METHODS) - set(OWN[0]) == {"RISE"}
        assert set(ATTRIBUTION_NAMES_TO_METHODS) == set(OWN[0])

    def test_a_block_that_fails(self):
        with pytest.raises(KeyError), register():
            raise KeyError
        assert set(ATTRIBUTION_NAMES_TO_METHODS) == set(OWN[0])

    def test_again_replaces(self, model):
        register(layer=model.features)
        register(layer=model.relu, methods=["group_cam"])
        assert set(ATTRIBUTION_NAMES_TO_METHODS) - set(OWN[0]) == {"Group-CAM"}
        registered = ATTRIBUTION_NAMES_TO_METHODS["Group-CAM"]
        assert issubclass(registered, InsightsMethod)
        assert registered.registration.layer is model.relu

    def test_unregister_without_register(self):
        unregister()
        unregister()

    def test_bad_arguments_change_nothing(self, model):
        register(methods=["RISE"])
        with pytest.raises(ValueError, match="Unknown methods"):
            register(methods=["KAM"])
        assert "RISE" in ATTRIBUTION_NAMES_TO_METHODS


def test_pictures_are_those_of_the_maps(model, noise, visualizer):
    register()
    visualizer._update_config(request(visualizer, "Group-CAM", n_groups=5))
    outputs = visualizer.visualize()
    assert len(outputs) == 4
    for image, (output,) in zip(noise.split(1), outputs, strict=True):
        assert_drawn(output, group_cam(model, image, int(output.active_index), n_groups=5))

    other = int(outputs[0][0].predicted[1].index)
    output = visualizer._calculate_attribution_from_cache(0, 0, other)
    assert_drawn(output, group_cam(model, noise[:1], other, n_groups=5))


@pytest.mark.parametrize(
    ("method", "control", "sent", "keyword"),
    [
        ("Group-CAM", "n_groups", 3, 3),
        ("Group-CAM", "n_groups", None, 32),  # an empty field
        ("Group-CAM", "grouping", "contiguous", "contiguous"),
        ("Group-CAM", "denoise_percentile", 20, 20),
        ("Group-CAM", "denoise_at", "input", "input"),
        ("Group-CAM", "relu_scores", "True", True),
        ("Group-CAM", "merge_normalized", "False", False),
        ("Group-CAM", "relu_scores", "False", False),
        ("Score-CAM", "weighting", "increase", "increase"),
        ("RISE", "n_masks", 30, 30),
        ("RISE", "grid_size", 3, 3),
        ("RISE", "seed", 7, 7),
    ],
)
def test_controls_set_their_keywords(method, control, sent, keyword, model, noise, visualizer):
    register(layer=model.relu)
    few = {"n_masks": 40} if method == "RISE" else {}
    arguments = request(visualizer, method, **(few | {control: sent}))["arguments"]
    image, baselines = noise[:1], [(torch.zeros_like(noise[:1]),)]
    # With the same dict for each sample, as Insights does.
    for _ in range(2):
        (attributions,) = visualizer.attribution_calculation.calculate_attribution(
            baselines, (image,), None, torch.tensor(1), method, arguments, model
        )
    attribution = offered()[method].attribution
    explainer = attribution(model) if method == "RISE" else attribution(model, model.relu)
    reference = explainer.attribute(image, target=1, **(few | {control: keyword}))
    torch.testing.assert_close(attributions.sum(1, keepdim=True), reference)


def test_the_baseline_transform_of_a_feature(model, noise):
    register()
    visualizer = AttributionVisualizer(
        models=model,
        classes=CLASSES,
        features=ImageFeature(
            "Photo", baseline_transforms=lambda image: image / 2, input_transforms=None
        ),
        dataset=[Batch(noise, torch.arange(4))],
    )
    visualizer._update_config(request(visualizer, "Group-CAM"))
    ((output,), *_) = visualizer.visualize()
    target = int(output.active_index)
    assert_drawn(output, group_cam(model, noise[:1], target, baselines=noise[:1] / 2))


def test_notebook_widget(model, noise, visualizer):
    """The half of the widget that runs in the kernel, given what its other half would send."""
    register()
    widget = CaptumInsights(visualizer=visualizer)
    assert "Group-CAM" in widget.insights_config["methods"]
    assert widget.insights_config["method_arguments"]["Group-CAM"]["n_groups"]["value"] == 32

    widget.config = request(visualizer, "Group-CAM", n_groups=3)
    assert widget.config == {}, "The request is not done."
    outputs = json.loads(json.dumps(namedtuple_to_dict(widget.output)))  # as the notebook gets it
    assert len(outputs) == 4
    (output,) = outputs[0]
    reference = drawing(group_cam(model, noise[:1], output["active_index"], n_groups=3))
    assert np.abs(pixels(output["feature_outputs"][0]["modified"]) - reference).max() <= 2

    other = output["predicted"][1]["index"]
    widget.label_details = {"inputIndex": 0, "modelIndex": 0, "labelIndex": other}
    reference = drawing(group_cam(model, noise[:1], other, n_groups=3))
    (feature,) = widget.attribution["feature_outputs"]
    assert np.abs(pixels(feature["modified"]) - reference).max() <= 2
