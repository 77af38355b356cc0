"""TorchScript, fx and torch.export: explained where their modules are called, refused elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_groupcam import RISE
from captum_groupcam.networks.layers import find_layer
from tests.toy_networks import MASKING, classifier, images

every_method = pytest.mark.parametrize("method", MASKING)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def quietly(make: Callable[[], Any]) -> Any:
    """TorchScript is deprecated, and the network behind it is what counts here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch.jit\.\w+` is deprecated")
        warnings.filterwarnings("ignore", r"`torch.jit\.\w+` is not supported in Python")
        return make()


SCRIPTS = {
    "script": lambda net, x: quietly(lambda: torch.jit.script(net)),
    "trace": lambda net, x: quietly(lambda: torch.jit.trace(net, x)),
}

every_script = pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())


@every_method
@every_script
def test_torchscript_is_refused_on_a_layer(method, script):
    net, x = classifier(seed=2), images(2, 14, 16)
    scripted = script(net, x)
    with pytest.raises(ValueError, match="TorchScript, which cannot be watched"):
        MASKING[method](scripted, scripted.features, x)
    with pytest.raises(ValueError, match="TorchScript network cannot be watched"):
        find_layer(scripted, x)


@every_script
def test_torchscript_is_explained_without_a_layer(script):
    net, x = classifier(seed=2), images(2, 14, 16)
    expected = RISE(net).attribute(x, target=2, n_masks=20)
    close(RISE(script(net, x)).attribute(x, target=2, n_masks=20), expected)


@every_method
@every_script
def test_a_part_in_torchscript_is_no_hindrance(method, script):
    net, x = classifier(seed=2), images(2, 14, 16)
    expected = MASKING[method](net, net.features, x)
    net.head = script(net.head, net.features(x).detach())
    close(MASKING[method](net, net.features, x), expected)
    assert find_layer(net, x).name == "features"


@every_method
def test_symbolic_trace(method):
    net, x = classifier(seed=2), images(2, 14, 16)
    expected = MASKING[method](net, net.features, x)
    traced = torch.fx.symbolic_trace(net)
    close(MASKING[method](traced, traced.get_submodule("features.3"), x), expected)
    with pytest.raises(ValueError, match="was not called in the forward pass"):
        MASKING[method](traced, traced.features, x)


@pytest.fixture(scope="module")
def exported() -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    return torch.export.export(
        classifier(seed=2), (images(2, 14, 16),), dynamic_shapes=({0: batch},)
    )


@every_method
def test_exported_and_unflattened(method, exported):
    net, x = classifier(seed=2), images(3, 14, 16)
    expected = MASKING[method](net, net.features, x)
    unflattened = torch.export.unflatten(exported).eval()
    close(MASKING[method](unflattened, unflattened.features, x), expected)
    assert find_layer(unflattened, x).name == find_layer(net, x).name


@every_method
def test_exported_is_refused_on_a_layer(method, exported):
    module, x = exported.module(), images(3, 14, 16)
    with pytest.raises(ValueError, match=r"not called .*torch\.export\.unflatten"):
        MASKING[method](module.forward, module.features, x)
    with pytest.raises(ValueError, match="No layer of GraphModule"):
        find_layer(module, x)


def test_exported_is_explained_without_a_layer(exported):
    net, x = classifier(seed=2), images(3, 14, 16)
    expected = RISE(net).attribute(x, target=2, n_masks=20)
    close(RISE(exported.module().forward).attribute(x, target=2, n_masks=20), expected)
