"""Several layers and smoothing around every method of the registry, and on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from captum_groupcam import GradCAM, LayerCAM
from captum_groupcam.apps.cli import app
from captum_groupcam.attr.by_component import by_component
from captum_groupcam.attr.several_layers import SeveralLayers
from captum_groupcam.attr.smoothed import Smoothed
from captum_groupcam.methods import METHODS, MethodSpec
from captum_groupcam.networks.target_layer import TargetLayer
from tests.toy_networks import Recorder, SmallCNN, TokenCNN, small_inputs

ON_LAYER = [n for n, m in METHODS.items() if m.kind == "method" and m.on_layer and n != "cam"]
CHEAP = {"group_cam": {"n_groups": 3}, "group_cam_gradient_free": {"n_groups": 3}}
LAYERS = ("features.0", "features")


@pytest.mark.parametrize("name", ON_LAYER)
def test_every_method_explains_several_layers(name):
    network, inputs = SmallCNN(), small_inputs(2)
    found = METHODS[name](network, network.features, layers=LAYERS, **CHEAP.get(name, {}))
    maps = found(inputs, [1, 3])
    assert maps.shape == (2, 1, 24, 24)
    assert maps.min() >= 0
    assert 0.05 < maps.max() <= 1


@pytest.mark.parametrize("merge", ["mean", "maximum", "product"])
def test_they_are_those_of_the_wrapper(merge):
    network, inputs = SmallCNN(), small_inputs(2)
    found = METHODS["layer_cam"](network, network.features, layers=LAYERS, merge=merge)
    several = SeveralLayers(LayerCAM, network, [network.features[0], network.features])
    # Here maps are brought to the size of the input first, there to [0, 1].
    expected = several.attribute(inputs, 1, merge=merge)
    assert (found(inputs, 1) - expected).abs().max() < 0.1


def test_layers_are_read_as_the_networks_own_is():
    network, inputs = TokenCNN().eval(), small_inputs(2)
    layer = TargetLayer(
        network.tokens, reshape_transform=lambda t: t.transpose(1, 2).unflatten(2, (8, 8))
    )
    found = METHODS["grad_cam"](network, layer, layers=("tokens", "tokens"))(inputs, 1)
    one = METHODS["grad_cam"](network, layer)(inputs, 1)
    torch.testing.assert_close(found, (one - one.amin((2, 3), True)) / one.amax((2, 3), True))


def test_smoothing_is_that_of_the_wrappers():
    network, inputs = SmallCNN(stride=1), small_inputs(2)
    grad_cam = GradCAM(network, network.features)
    options = {"relu_attributions": True}
    for smooth, method in {
        "flips": Smoothed(grad_cam),
        "component": by_component(grad_cam),
        "both": Smoothed(by_component(grad_cam)),
    }.items():
        found = METHODS["grad_cam"](network, network.features, smooth=smooth)(inputs, [1, 3])
        torch.testing.assert_close(found, method.attribute(inputs, [1, 3], **options))


def test_passes_are_counted():
    recorder = Recorder(SmallCNN())
    options = {"layers": ("network.features.0", "network.features"), "smooth": "flips"}
    METHODS["grad_cam"](recorder, recorder.network.features, **options)(small_inputs(1), 1)
    assert sum(recorder.batch_sizes) == METHODS["grad_cam"].n_passes(**options) == 27


def test_wrong_options():
    network = SmallCNN()
    with pytest.raises(ValueError, match="adds up no channels"):
        METHODS["group_cam"](network, network.features, smooth="component")
    with pytest.raises(ValueError, match="merge"):
        METHODS["grad_cam"](network, network.features, layers=LAYERS, merge="sum")
    with pytest.raises(TypeError, match="layers"):
        METHODS["grad_cam"](network, network.features, layers="features")
    with pytest.raises(TypeError, match="no option 'layers'"):
        METHODS["rise"](network, layers=LAYERS)
    with pytest.raises(ValueError, match="has no layer 'feature'"):
        METHODS["grad_cam"](network, network.features, layers=("feature",))(small_inputs(1), 0)


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("layer_cam:layers=(layer3,layer4),merge=product", ("layer3", "layer4")),
        ("layer_cam:layers=(1.10, 4)", ("1.10", "4")),
        ("layer_cam:layers=[input of a.0,b]", ("input of a.0", "b")),
        ("layer_cam:layers=layer4", ("layer4",)),
    ],
)
def test_layers_as_text(text, layers):
    spec = MethodSpec.parse(text)
    assert spec.options["layers"] == layers
    assert MethodSpec.parse(str(spec)) == spec


def test_on_the_command_line(cat_file: Path, tmp_path: Path) -> None:
    method = "layer_cam:layers=(_blocks.10,_blocks.15),merge=product,smooth=component"
    arguments = ["explain", str(cat_file), "--method", method, "--out", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert list(tmp_path.glob("cat_*.png"))
