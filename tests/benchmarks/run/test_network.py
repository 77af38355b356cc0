from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import controls  # noqa: F401
from benchmarks.run.network import Compiled, counted
from captum_groupcam.methods import METHODS
from captum_groupcam.networks import accelerate


def small_cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compiled:
    """Compiled by a backend that runs the graph as it is, which needs no C++ compiler."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: compile_(*a, **k, backend="eager"))
    return Compiled(small_cnn())


def test_without_gradients_the_compiled_code_runs(compiled: Compiled) -> None:
    inputs = torch.rand(2, 3, 8, 8)
    calls: list[Any] = []
    compiled._orig_mod.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        without = compiled(inputs)
    assert not calls  # the module itself was not called
    with_gradients = compiled(inputs)
    assert calls
    assert with_gradients.requires_grad
    torch.testing.assert_close(without, with_gradients)


def test_a_copy_has_weights_of_its_own(compiled: Compiled) -> None:
    inputs = torch.rand(2, 3, 8, 8)
    twin = copy.deepcopy(compiled)
    with torch.no_grad():
        before = compiled(inputs)
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin(inputs).any()
        torch.testing.assert_close(compiled(inputs), before)


@pytest.mark.parametrize("name", ["group_cam", "grad_cam", "guided_backprop", "rise", "cam"])
def test_maps_and_counts_are_those_of_the_network(name: str, compiled: Compiled) -> None:
    network = small_cnn()
    inputs: Tensor = torch.rand(1, 3, 8, 8)
    options = {"n_masks": 10} if name == "rise" else {}
    found = []
    for model, inner in ((network, network), (compiled, compiled._orig_mod)):
        with counted(model) as queries:
            maps = METHODS[name](model, inner[1], **options)(inputs, 1)
        found.append((maps, queries.count))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_counts_are_hand_counted() -> None:
    network = small_cnn()
    inputs = torch.rand(1, 3, 8, 8)
    for name, expected in (
        ("grad_cam", 1),  # one pass
        ("rise", 10),  # one a mask
        ("integrated_gradients", 50),  # one a step
        ("centre", 0),
    ):
        options = {"n_masks": 10} if name == "rise" else {}
        with counted(network) as queries:
            METHODS[name](network, network[0], **options)(inputs, 1)
        assert queries.count == expected, name
    assert not network._forward_pre_hooks


def normalised_cnn() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    network(torch.rand(16, 3, 8, 8))  # statistics of its own
    return network.eval()


@pytest.mark.parametrize(
    "name", ["group_cam", "grad_cam", "guided_backprop", "rise", "ablation_cam"]
)
def test_an_accelerated_network_gives_maps_and_counts_of_the_plain_one(name: str) -> None:
    network, inputs = normalised_cnn(), torch.rand(1, 3, 8, 8)
    options = {"n_masks": 10} if name == "rise" else {}
    found = []
    for model in (network, accelerate(normalised_cnn(), torch.rand(1, 3, 8, 8))):
        with counted(model) as queries:
            maps = METHODS[name](model, getattr(model, "_orig_mod", model)[2], **options)(inputs, 1)
        found.append((maps, queries.count))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_the_copy_answers_what_needs_no_gradients() -> None:
    written = normalised_cnn()
    shown: list[int] = []
    # There before the copy, which has it, too.
    written[0].register_forward_hook(
        lambda module, args, _: shown.append(len(args[0])) if module is written[0] else None
    )
    network = accelerate(written, torch.rand(1, 3, 8, 8))
    shown.clear()
    with counted(network) as queries:
        METHODS["rise"](network, n_masks=40)(torch.rand(1, 3, 8, 8), 1)
    assert queries.count == 40
    assert sum(shown) < 10  # one row is compared in each call
    with counted(network) as queries:
        twin = copy.deepcopy(network)
        assert isinstance(twin, nn.Sequential)
        twin(torch.rand(2, 3, 8, 8))
    assert queries.count == 2
