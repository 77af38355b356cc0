"""Compiled networks: queries run compiled, the layer is watched in the network as written."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import CAM, RISE, AblationCAM
from captum_groupcam.networks.layers import find_layer
from tests.toy_networks import FORMULAS, MASKING, Recorder, classifier, hooks, images

METHODS = {
    **MASKING,
    "RISE": lambda net, _, x: RISE(net).attribute(x, target=2, n_masks=20),
}

every_method = pytest.mark.parametrize("method", METHODS)
# Before torch 2.6 nothing can be run as written once it is compiled in place or inside.
needs_stance = pytest.mark.skipif(
    not hasattr(torch.compiler, "set_stance"), reason="needs torch.compiler.set_stance"
)


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Counter:
    """A backend that runs graphs as they are and keeps the batch size of each call."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def __call__(self, graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            outputs = graph.forward(*args)
            self.batch_sizes.append(len(outputs[0]))
            return outputs

        return run


def whole(net: nn.Module, backend: Any) -> tuple[Any, nn.Module]:
    return torch.compile(net, backend=backend, dynamic=True), net.features


def function(net: nn.Module, backend: Any) -> tuple[Any, nn.Module]:
    return torch.compile(lambda x: net(x), backend=backend, dynamic=True), net.features


def in_place(net: nn.Module, backend: Any) -> tuple[Any, nn.Module]:
    net.compile(backend=backend, dynamic=True)
    return net, net.features


def part(net: nn.Module, backend: Any) -> tuple[Any, nn.Module]:
    net.features = torch.compile(net.features, backend=backend, dynamic=True)
    return net, net.features


def inside_part(net: nn.Module, backend: Any) -> tuple[Any, nn.Module]:
    net, compiled = part(net, backend)
    return net, compiled._orig_mod[3]


FORMS = {
    "whole": whole,
    "function": pytest.param(function, marks=needs_stance),
    "in place": pytest.param(in_place, marks=needs_stance),
    "part": pytest.param(part, marks=needs_stance),
    "inside a part": pytest.param(inside_part, marks=needs_stance),
}

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


#: How many passes watch the layer or go back to the input, where it is not one. Without gradients
#: a second one asks whether the layer has the samples in their order.
_AS_WRITTEN = {"RISE": 0, "ConsensusGroupCAM": 4, "GroupCAM, gradient-free": 2, "ScoreCAM": 2}


@every_method
@every_form
def test_queries_run_compiled_and_the_layer_as_written(method, form):
    plain, x = classifier(seed=2), images(3, 14, 16)
    recorder = Recorder(plain)
    expected = METHODS[method](recorder, plain.features, x)
    # The passes that watch the layer or go back to the input come first.
    as_written = [3] * _AS_WRITTEN.get(method, 1)
    assert recorder.batch_sizes[: len(as_written)] == as_written
    queries = recorder.batch_sizes[len(as_written) :]

    counter = Counter()
    compiled, layer = form(copy.deepcopy(plain), counter)
    found = METHODS[method](compiled, layer, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert counter.batch_sizes == queries
    assert not hooks(plain).total()


@every_method
@pytest.mark.parametrize("form", [whole, pytest.param(in_place, marks=needs_stance)])
def test_weights_that_change_count(method, form):
    net, x = classifier(seed=2), images(2, 14, 16)
    compiled, layer = form(copy.deepcopy(net), "eager")
    before = METHODS[method](compiled, layer, x)
    with torch.no_grad():
        for parameter in (*net.parameters(), *compiled.parameters()):
            parameter.mul_(0.9)
    after = METHODS[method](compiled, layer, x)
    assert not torch.allclose(after, before, rtol=1e-3)
    torch.testing.assert_close(after, METHODS[method](net, net.features, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [method for method in FORMULAS if method is not CAM])
@every_form
def test_weights_at_the_layer(method, form):
    plain, x = classifier(seed=2), images(2, 14, 16)
    expected = method(plain, plain.features).attribute(x, 1)
    counter = Counter()
    compiled, layer = form(copy.deepcopy(plain), counter)
    torch.testing.assert_close(method(compiled, layer).attribute(x, 1), expected)
    # Ablation-CAM asks for the score of the whole inputs, too.
    assert counter.batch_sizes == ([2] if method is AblationCAM else [])


@pytest.mark.parametrize("form", [whole, pytest.param(in_place, marks=needs_stance)])
def test_cam(form):
    def make() -> nn.Module:
        torch.manual_seed(0)
        net = nn.Sequential()
        net.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
        net.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
        return net.eval()

    plain, x = make(), images(2, 14, 16)
    compiled, layer = form(make(), "eager")
    compiled(x)
    expected = CAM(plain, plain.features).attribute(x, 1)
    torch.testing.assert_close(CAM(compiled, layer).attribute(x, 1), expected)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (whole, "features"),
        pytest.param(in_place, "features", marks=needs_stance),
        pytest.param(part, "features", marks=needs_stance),
    ],
)
def test_the_layer_is_found(form, expected):
    net, x = classifier(seed=2), images(1, 14, 16)
    net.head[0] = nn.AdaptiveAvgPool2d(1)
    net.head[2] = nn.Linear(8, 5)
    compiled, _ = form(net.eval(), "eager")
    compiled(x)
    layer = find_layer(compiled, x)
    assert layer.name == expected
    assert layer.module is net.features


@every_method
def test_backend_with_ahead_of_time_autograd(method):
    net, x = classifier(seed=2), images(2, 14, 16)
    expected = METHODS[method](net, net.features, x)
    compiled, layer = whole(net, "aot_eager")
    torch.testing.assert_close(METHODS[method](compiled, layer, x), expected, rtol=1e-4, atol=1e-5)
