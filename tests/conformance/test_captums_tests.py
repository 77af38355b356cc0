"""The tests that Captum generates for its own methods, of targets and of hooks, for every class.

Captum makes them of a list of configurations: a batch must be its samples one at a time, whatever
the form of the target, and no hook may be left, also when the target is wrong or a module fails.
The list here has Captum's form and is read by its helpers, which the wheel of captum 0.9 has.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import captum_groupcam
from captum_groupcam import (
    CAM,
    RISE,
    XRAI,
    AttentionRollout,
    ConsensusGroupCAM,
    FullGrad,
    GroupCAM,
    LeGrad,
    ScoreCAM,
)
from tests.toy_networks import FORMULAS, Attentive, classifier, images, seeded

pytest.importorskip("captum.testing", reason="the wheel of captum 0.8 has no captum.testing")
from captum.attr import NoiseTunnel
from captum.testing.attr.helpers.gen_test_utils import (
    gen_test_name,
    get_target_layer,
    parse_test_config,
)
from captum.testing.helpers.basic import BaseTest, assertTensorTuplesAlmostEqual


class Scaled(nn.Module):
    """Two pictures, a factor for each sample, and a number for all."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = classifier(seed=2, pooled=1)

    def forward(self, first, second, factor=None, power=1):
        output = self.inner((first + second) / 2)
        return output if factor is None else output * factor.unsqueeze(1) ** power


class Boxes(nn.Module):
    """An output with more than two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = classifier(classes=5 * 4 * 3, seed=2)

    def forward(self, x):
        return self.inner(x).unflatten(1, (5, 4, 3))


SEVERAL_INPUTS = [*(method for method in FORMULAS if method is not CAM), GroupCAM, ScoreCAM]
ON_LAYER = [*SEVERAL_INPUTS, CAM, ConsensusGroupCAM]
NETWORK = classifier(seed=2, pooled=1)
X = images(3, 20, 24)
PAIR = (images(3, 20, 24, seed=1), images(3, 20, 24, seed=2))
FACTORS = (torch.tensor([0.5, 1.0, 2.0]), 2)


def configuration(name: str, algorithms: list[type], **arguments: Any) -> dict[str, Any]:
    model = arguments.pop("model", NETWORK)
    layer = {"layer": arguments.pop("layer", "features")} if algorithms[0] in ON_LAYER else {}
    noise_tunnel = arguments.pop("noise_tunnel", False)
    return {
        "name": name,
        "algorithms": algorithms,
        "model": model.eval(),
        "attribute_args": arguments,
        "noise_tunnel": noise_tunnel,
        **layer,
    }


CONFIGURATIONS = [
    configuration("list_of_targets", ON_LAYER, inputs=X, target=[4, 2, 0]),
    configuration("tensor_of_targets", ON_LAYER, inputs=X, target=torch.tensor([4, 2, 0])),
    configuration("one_target_in_a_tensor", ON_LAYER, inputs=X, target=torch.tensor([4])),
    configuration(
        "several_inputs",
        SEVERAL_INPUTS,
        model=Scaled(),
        layer="inner.features",
        inputs=PAIR,
        additional_forward_args=FACTORS,
        target=[4, 2, 0],
    ),
    configuration(
        "several_inputs_pooled",
        [CAM],
        model=Scaled(),
        layer="inner.features",
        inputs=PAIR,
        target=[4, 2, 0],
    ),
    configuration(
        "list_of_tuples",
        [method for method in ON_LAYER if method is not CAM],
        model=Boxes(),
        layer="inner.features",
        inputs=X,
        target=[(4, 0, 1), (2, 3, 2), (0, 0, 0)],
    ),
    configuration(
        "noise_tunnel",
        ON_LAYER,
        inputs=X,
        target=[4, 2, 0],
        nt_samples=2,
        stdevs=0.0,
        noise_tunnel=True,
    ),
    configuration("full_gradients", [FullGrad], inputs=X, target=[4, 2, 0]),
    configuration(
        "full_gradients_of_several_inputs",
        [FullGrad],
        model=Scaled(),
        inputs=PAIR,
        additional_forward_args=FACTORS,
        target=[4, 2, 0],
    ),
    configuration("masks", [RISE], inputs=X, target=[4, 2, 0], n_masks=8, baselines=X / 2),
    configuration(
        "masks_over_several_inputs",
        [RISE],
        model=Scaled(),
        inputs=PAIR,
        additional_forward_args=FACTORS,
        baselines=(PAIR[0] / 2, 0.0),
        target=torch.tensor([4, 2, 0]),
        n_masks=8,
    ),
    configuration(
        "masks_noise_tunnel",
        [RISE],
        inputs=X,
        target=[4, 2, 0],
        n_masks=8,
        baselines=X / 2,
        nt_samples=2,
        stdevs=0.0,
        noise_tunnel=True,
    ),
    configuration(
        "attention",
        [AttentionRollout, LeGrad],
        model=seeded(Attentive, 2),
        inputs=X,
        target=[4, 2, 0],
    ),
    configuration(
        "regions",
        [XRAI],
        inputs=X,
        target=[4, 2, 0],
        n_steps=4,
        algorithm="fast",
        baselines=X / 2,
    ),
]
CASES = [
    pytest.param(
        config,
        algorithm,
        id=gen_test_name("", config["name"], algorithm, config["noise_tunnel"]).lstrip("_"),
    )
    for config in CONFIGURATIONS
    for algorithm in config["algorithms"]
]
FIRST_OF_EACH = {case.values[1]: case for case in reversed(CASES)}


class Fails(nn.Module):
    """A module whose execution fails as Captum's tests have it."""

    def forward(self, *args: Any) -> Any:
        raise AssertionError("Raising error on execution")


def made(config: dict[str, Any], algorithm: type, model: nn.Module) -> Any:
    _, _, _, layer, noise_tunnel, _ = parse_test_config(config)
    if algorithm is XRAI:
        pytest.importorskip("saliency.core")
    method = algorithm(model) if layer is None else algorithm(model, get_target_layer(model, layer))
    return NoiseTunnel(method) if noise_tunnel else method


def part(value: Any, index: slice) -> Any:
    """A sample's part of an argument."""
    if isinstance(value, tuple):
        return tuple(part(one, index) for one in value)
    whole = isinstance(value, torch.Tensor) and len(value) == 3
    return value[index] if whole else value


def test_every_class_is_among_them() -> None:
    assert {cls.__name__ for cls in FIRST_OF_EACH} == set(captum_groupcam.__all__)


@pytest.mark.parametrize(("config", "algorithm"), CASES)
def test_targets(config: dict[str, Any], algorithm: type) -> None:
    test = BaseTest()
    _, model, arguments, *_ = parse_test_config(config)
    method = made(config, algorithm, model)
    test.setUp()
    together = method.attribute(**arguments)
    for n in range(3):
        index = slice(n, n + 1)
        of_sample = {name: part(value, index) for name, value in arguments.items()}
        targets = arguments["target"]
        single = targets[n] if len(targets) == 3 else targets
        for target in (single, targets[index] if len(targets) == 3 else targets):
            test.setUp()
            alone = method.attribute(**{**of_sample, "target": target})
            expected = part(together, index)
            assertTensorTuplesAlmostEqual(test, expected, alone, delta=0.0001, mode="max")


@pytest.mark.parametrize("mode", ["normal", "incorrect_target", "invalid_module"])
@pytest.mark.parametrize(("config", "algorithm"), FIRST_OF_EACH.values())
def test_hook_removal(config: dict[str, Any], algorithm: type, mode: str) -> None:
    config = copy.deepcopy(config)
    _, model, arguments, layer, *_ = parse_test_config(config)
    if mode == "invalid_module":
        parent, _, name = (layer or "features").rpartition(".")
        setattr(model.get_submodule(parent), name, Fails().eval())
    method = made(config, algorithm, model)
    if mode == "incorrect_target":
        arguments["target"] = (9999,) * 20
    if mode == "normal":
        method.attribute(**arguments)
    else:
        with pytest.raises(AssertionError):
            method.attribute(**arguments)
    for module in model.modules():
        assert len(module._forward_hooks) == 0
        assert len(module._backward_hooks) == 0
        assert len(module._forward_pre_hooks) == 0
