"""A faster copy answers queries: the same maps to rounding, and the network is left as it was."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from captum_groupcam import RISE, AblationCAM, ConsensusGroupCAM, GroupCAM, ScoreCAM
from captum_groupcam.metrics.functional import deletion_insertion
from captum_groupcam.models import ImageClassifier
from captum_groupcam.networks import accelerate
from tests.networks.normalised import Normalised, normalised, outputs
from tests.toy_networks import hooks, images, seeded, small_vit


class Counted(nn.Module):
    """How often the network itself runs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.rows: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.rows.append(len(inputs))
        return self.network(inputs)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), 20),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10), 52),
    "transformer": (small_vit, 0),
}


@pytest.mark.filterwarnings("ignore:.*the sum of their masks")  # they are untrained
@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_the_same_to_rounding(name: str) -> None:
    make, folded = NETWORKS[name]
    network = seeded(make).eval()
    inputs = images(2, 32, 32)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            seeded(lambda m=module: nn.init.uniform_(m.running_var, 0.5, 2))
    fast = accelerate(network, inputs[:1])
    assert fast.folded == folded
    torch.testing.assert_close(outputs(fast, inputs), outputs(network, inputs), rtol=0, atol=1e-4)
    maps = [RISE(model).attribute(inputs, target=3, n_masks=10) for model in (network, fast)]
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-4, atol=1e-6)
    if name == "resnet18":
        maps = [
            GroupCAM(model, network.layer2).attribute(
                inputs, 3, n_groups=4, relu_attributions=False
            )
            for model in (network, fast)
        ]
        torch.testing.assert_close(maps[1], maps[0], rtol=1e-3, atol=1e-6)


def test_a_network_with_imagenet_weights(
    lite0: ImageClassifier, images: Callable[..., Tensor]
) -> None:
    inputs = images("cat")
    fast = accelerate(lite0.network, inputs)
    assert fast.folded == 49
    torch.testing.assert_close(
        outputs(fast, inputs), outputs(lite0.network, inputs), rtol=0, atol=1e-3
    )
    options = {"n_groups": 4, **lite0.layer.keywords}
    maps = [
        GroupCAM(model, lite0.layer.module).attribute(inputs, 282, **options)
        for model in (lite0.network, fast)
    ]
    torch.testing.assert_close(maps[1], maps[0], rtol=0, atol=1e-4 * float(maps[0].max()))


METHODS: dict[str, Callable[[Any, nn.Module, Tensor], Tensor]] = {
    "GroupCAM": lambda net, layer, x: GroupCAM(net, layer).attribute(x, 2, n_groups=4),
    "gradient-free": lambda net, layer, x: GroupCAM(net, layer).attribute(
        x, 2, n_groups=4, gradient_free=True
    ),
    "ScoreCAM": lambda net, layer, x: ScoreCAM(net, layer).attribute(x, 2),
    "ConsensusGroupCAM": lambda net, layer, x: ConsensusGroupCAM(net, layer).attribute(
        x, 2, n_groups=4
    ),
    "AblationCAM": lambda net, layer, x: AblationCAM(net, layer).attribute(x, 2),
    "RISE": lambda net, _, x: RISE(net).attribute(x, target=2, n_masks=20),
    "deletion": lambda net, _, x: (
        deletion_insertion(net, x.mean(1), x, 2, protocol="official").deletion_curve
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_it(method: str) -> None:
    network, inputs = normalised(), images(2, 16, 16)
    layer, state = network.last, copy.deepcopy(network.state_dict())
    fast = accelerate(network, inputs)
    expected = METHODS[method](network, layer, inputs)
    found = METHODS[method](fast, layer, inputs)
    assert expected.any()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert not hooks(network).total()
    assert all(parameter.requires_grad for parameter in network.parameters())
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)


def test_queries_do_not_run_in_the_network() -> None:
    network = Counted(normalised()).eval()
    inputs = images(2, 16, 16)
    fast = accelerate(network, inputs)
    assert network.rows == []
    GroupCAM(fast, network.network.last).attribute(inputs, 2, n_groups=4)
    assert network.rows == [2, 1]  # for gradients, and to be compared
    RISE(fast).attribute(inputs, target=2, n_masks=20, internal_batch_size=4)
    assert network.rows == [2, 1, 1]
    # Outside of such a call each pass is compared; one row alone is the network's.
    outputs(fast, inputs)
    outputs(fast, inputs[:1])
    assert network.rows == [2, 1, 1, 1, 1]


def test_the_network_is_left_as_it_was() -> None:
    network = seeded(lambda: Normalised()).eval()
    network.first.weight.requires_grad_(False)
    state = copy.deepcopy(network.state_dict())
    generator = torch.get_rng_state()
    with torch.inference_mode():
        fast = accelerate(network, images(2, 16, 16))
    assert not any(module.training for module in network.modules())
    assert [p.requires_grad for p in network.parameters()].count(False) == 1
    assert not hooks(network).total()
    assert torch.equal(torch.get_rng_state(), generator)
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)
    assert fast.state_dict().keys() == {f"_orig_mod.{name}" for name in state}
    assert type(copy.deepcopy(fast)) is Normalised


def test_gradients_hooks_and_modes_are_those_of_the_network() -> None:
    network = Counted(normalised()).eval()
    inputs = images(1, 16, 16)
    fast = accelerate(network, inputs)
    output = fast(inputs)
    output.sum().backward()
    assert network.network.first.weight.grad is not None
    assert network.rows == [1]
    seen: list[int] = []
    handle = network.network.first.register_forward_hook(lambda *_: seen.append(1))
    outputs(fast, inputs)
    assert seen == [1]
    handle.remove()
    inputs = images(3, 16, 16)
    outputs(fast, inputs)
    assert network.rows == [1, 1, 1]  # to be compared
    network.train()
    outputs(fast, inputs)
    assert network.rows == [1, 1, 1, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()}),
        lambda net: net.double(),
        lambda net: setattr(net, "head", nn.Linear(8, 5)),
        lambda net: setattr(net.norm, "weight", nn.Parameter(torch.ones(8))),
        # What torch does not count as a change.
        lambda net: net.first.weight.data.mul_(1.5),
        lambda net: net.first.weight.data.mul_(1 + 1e-6),
        lambda net: net.head.bias.data.copy_(net.head.bias.data.flip(0)),
        lambda net: net.second.weight.data.copy_(net.second.weight.data.flip(0)),
        lambda net: net.second.weight.data.copy_(net.second.weight.data.flip(1)),
        lambda net: setattr(net.norm, "eps", 1e-4),
        lambda net: setattr(net.second, "stride", (2, 2)),
    ],
)
def test_changed_weights_are_noticed(change: Callable[[nn.Module], object]) -> None:
    network, inputs = normalised(), images(2, 16, 16)
    fast = accelerate(network, inputs)
    change(network)
    inputs = inputs.to(network.first.weight)
    with pytest.warns(UserWarning, match="Call accelerate again"):
        found = outputs(fast, inputs)
    assert torch.equal(found, outputs(network, inputs))
    outputs(fast, inputs)  # says it once


def test_a_change_by_other_code_is_noticed_at_the_next_call() -> None:
    network, inputs = normalised(), images(2, 16, 16)
    fast = accelerate(network, inputs)
    explain = METHODS["RISE"]
    before = explain(fast, network.last, inputs)
    network.head.weight.data.neg_()
    with pytest.warns(UserWarning, match="weights or settings have changed"):
        found = explain(fast, network.last, inputs)
    assert torch.equal(found, explain(network, network.last, inputs))
    assert not torch.allclose(found, before, rtol=1e-2)


def test_weights_without_a_count_of_changes_are_read() -> None:
    with torch.inference_mode():
        network = normalised()
    inputs = images(2, 16, 16)
    fast = accelerate(network, inputs)
    with torch.inference_mode():
        network.head.weight.mul_(2)
    with pytest.warns(UserWarning, match="Call accelerate again"):
        found = outputs(fast, inputs)
    assert torch.equal(found, outputs(network, inputs))


class Sharpened(Normalised):
    """Holds a number that is no weight."""

    sharpness = 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * self.sharpness


def _otherwise(network: nn.Module) -> None:
    network.forward = lambda inputs: network.head(network.features(inputs).flatten(2).amax(2))


@pytest.mark.filterwarnings("ignore:.*the sum of their masks")  # it is untrained
@pytest.mark.parametrize(
    "change", [lambda net: setattr(net, "sharpness", 3.0), _otherwise], ids=["number", "forward"]
)
def test_a_network_that_answers_otherwise_runs_itself(change: Callable[[nn.Module], None]) -> None:
    network, inputs = normalised(Sharpened), images(2, 16, 16)
    fast = accelerate(network, inputs)
    outputs(fast, inputs)
    change(network)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = METHODS["RISE"](fast, network.last, inputs)
    torch.testing.assert_close(found, METHODS["RISE"](network, network.last, inputs))
    if "forward" not in vars(network):
        said = [str(one.message) for one in caught]
        assert any("answers otherwise: an output is" in one for one in said)


def test_one_hook_for_another() -> None:
    network, inputs = normalised(), images(2, 16, 16)
    handle = network.second.register_forward_hook(lambda module, args, output: output * 2)
    fast = accelerate(network, inputs)
    assert fast.folded == 1
    handle.remove()
    handle = network.second.register_forward_hook(lambda module, args, output: output * 3)
    assert torch.equal(outputs(fast, inputs), outputs(network, inputs))
    handle.remove()
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, output: output.round() if module is network.second else None
    )
    try:
        assert torch.equal(outputs(fast, inputs), outputs(network, inputs))
    finally:
        handle.remove()


class OneWayOrAnother(Normalised):
    """Takes what the convolution gives twice, for dark images only."""

    def features(self, inputs: Tensor) -> Tensor:
        first = self.first(inputs)
        normed = self.norm(first).relu()
        return self.last(self.second(normed if float(inputs.mean()) > 0 else normed + first))


def test_a_way_that_no_trial_took_is_noticed_when_it_is_taken() -> None:
    network, inputs = normalised(OneWayOrAnother), images(2, 16, 16)
    fast = accelerate(network, inputs)
    assert fast.folded == 2
    torch.testing.assert_close(outputs(fast, inputs), outputs(network, inputs), rtol=0, atol=1e-4)
    with pytest.warns(UserWarning, match="answers otherwise: an output is .* instead of"):
        found = METHODS["RISE"](fast, network.last, -inputs)
    assert torch.equal(found, METHODS["RISE"](network, network.last, -inputs))


def test_a_network_in_training_mode_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).train()
    with pytest.raises(ValueError, match="in training mode"):
        accelerate(network, torch.rand(2, 3, 8, 8))


def test_errors_say_what_to_do() -> None:
    network, inputs = normalised(), images(1, 16, 16)
    with pytest.raises(TypeError, match=r"Expected a torch\.nn\.Module, got function"):
        accelerate(lambda x: x, inputs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="compiled_batch_size must be at least 1, got 0"):
        accelerate(network, inputs, compiled_batch_size=0)
    with pytest.raises(ValueError, match="fails with the given inputs: RuntimeError"):
        accelerate(network, images(1, 16, 16, channels=5))
    with pytest.raises(ValueError, match="NaN or infinite values"):
        accelerate(network, inputs * torch.inf)
    network.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be copied, .*TypeError: cannot pickle .*lock"):
        accelerate(network, inputs)


class Several(Normalised):
    """Gives several tensors, and takes an argument."""

    def forward(self, inputs: Tensor, scale: float = 1.0) -> dict[str, Tensor]:  # type: ignore[override]
        features = self.features(inputs)
        return {"features": features, "logits": super().forward(inputs) * scale}


def test_several_outputs_and_arguments() -> None:
    network, inputs = normalised(Several), images(2, 16, 16)
    # Each module runs twice.
    assert accelerate(network, inputs).folded == 0
    fast = accelerate(network, inputs, 3.0)
    with torch.no_grad():
        torch.testing.assert_close(fast(inputs, 3.0), network(inputs, 3.0), rtol=0, atol=1e-5)
