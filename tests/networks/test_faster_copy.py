"""Steps that make the copy faster are taken where outputs stay the same, and left out elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from captum_groupcam.networks import accelerate
from tests.networks.normalised import Normalised, normalised, outputs
from tests.toy_networks import images


class BesideALargeOne(Normalised):
    """One output is far larger than the others."""

    def forward(self, inputs: Tensor) -> Tensor:
        output = super().forward(inputs)
        return torch.cat([output[:, :1] * 1e4, output[:, 1:]], 1)


class TwiceBesideALargeOne(BesideALargeOne):
    """A wrong fold changes the others only."""

    def features(self, inputs: Tensor) -> Tensor:
        first = self.first(inputs)
        normed = self.norm(first).relu()
        self.kept = first
        return self.last(self.second(normed))

    def forward(self, inputs: Tensor) -> Tensor:
        output = super().forward(inputs)
        return torch.cat([output[:, :1], output[:, 1:] + self.kept.mean((2, 3))[:, 1:5]], 1)


def test_a_wrong_fold_does_not_hide_behind_a_large_output() -> None:
    network, inputs = normalised(TwiceBesideALargeOne), images(2, 16, 16)
    expected = outputs(network, inputs)
    assert expected[:, 0].abs().min() > 1e3 * expected[:, 1:].abs().max()
    with pytest.warns(UserWarning, match="is not folded: an output is"):
        fast = accelerate(network, inputs)
    torch.testing.assert_close(outputs(fast, inputs), expected, rtol=1e-4, atol=1e-4)
    # A right one is taken.
    network = normalised(BesideALargeOne)
    assert accelerate(network, inputs).folded == 2


class Twice(Normalised):
    """What the convolution gives is used twice: folding would change it."""

    def features(self, inputs: Tensor) -> Tensor:
        first = self.first(inputs)
        return self.last(self.second(self.norm(first).relu() + first))


class Functional(Normalised):
    """Normalises without calling a module."""

    def features(self, inputs: Tensor) -> Tensor:
        x = self.first(inputs)
        norm = self.norm
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        return self.last(self.second(x.relu()))


class InPlace(Normalised):
    """Something happens between the two, in place."""

    def features(self, inputs: Tensor) -> Tensor:
        first = self.first(inputs)
        first.mul_(2)
        return self.last(self.second(self.norm(first).relu()))


class Shared(Normalised):
    """A normalisation that runs twice."""

    def features(self, inputs: Tensor) -> Tensor:
        return self.norm(self.second(self.norm(self.first(inputs)).relu()))


class WayByValue(Normalised):
    """Which way it goes depends on values, which no tracer can follow."""

    def features(self, inputs: Tensor) -> Tensor:
        x = self.norm(self.first(inputs))
        return self.last(self.second(x.relu() if float(x.mean()) > -100 else x))


@pytest.mark.parametrize(
    ("kind", "folded"), [(Functional, 1), (InPlace, 1), (Shared, 0), (WayByValue, 2)]
)
def test_what_can_be_folded_is(kind: type[Normalised], folded: int) -> None:
    network, inputs = normalised(kind), images(2, 16, 16)
    fast = accelerate(network, inputs)
    assert fast.folded == folded
    torch.testing.assert_close(outputs(fast, inputs), outputs(network, inputs), rtol=0, atol=1e-5)


def test_a_copy_that_differs_is_refused_and_the_difference_named() -> None:
    network, inputs = normalised(Twice), images(2, 16, 16)
    with pytest.warns(UserWarning, match=r"is not folded: an output is .*\d instead of"):
        fast = accelerate(network, inputs)
    assert fast.folded == 0
    torch.testing.assert_close(outputs(fast, inputs), outputs(network, inputs), rtol=0, atol=1e-5)


class Viewing(Normalised):
    """Takes for granted how its features lie in memory."""

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.features(inputs)
        return self.head(features.view(len(features), -1).view(len(features), 8, -1).mean(2))


def test_a_layout_that_a_network_cannot_take_is_left_out() -> None:
    network, inputs = normalised(Viewing), images(2, 16, 16)
    with pytest.warns(UserWarning, match="layout of images stays as it is: RuntimeError: view"):
        fast = accelerate(network, inputs)
    assert fast.folded == 2
    torch.testing.assert_close(outputs(fast, inputs), outputs(network, inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("convolution", "norm", "size"),
    [
        (nn.Conv1d, nn.BatchNorm1d, (16,)),
        (nn.Conv2d, FrozenBatchNorm2d, (16, 16)),
        (nn.ConvTranspose2d, nn.BatchNorm2d, (9, 9)),
        (nn.Conv3d, nn.BatchNorm3d, (8, 8, 8)),
    ],
)
def test_every_kind_of_convolution(convolution: Any, norm: Any, size: tuple[int, ...]) -> None:
    network, inputs = normalised(convolution=convolution, norm=norm), images(2, *size)
    fast = accelerate(network, inputs)
    assert fast.folded == 2
    torch.testing.assert_close(outputs(fast, inputs), outputs(network, inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_frozen_networks_of_other_precision(dtype: torch.dtype) -> None:
    network, inputs = normalised().to(dtype).requires_grad_(False), images(2, 16, 16).to(dtype)
    fast = accelerate(network, inputs)
    assert fast.folded == 2
    expected = outputs(network, inputs)
    tolerance = torch.finfo(dtype).eps ** 0.5 * float(expected.abs().max())
    torch.testing.assert_close(outputs(fast, inputs), expected, rtol=0, atol=tolerance)


def test_weights_that_something_else_makes_are_left_alone() -> None:
    network = normalised()
    torch.nn.utils.parametrizations.weight_norm(network.first)
    network.second.register_forward_hook(lambda module, args, output: output * 2)
    inputs = images(2, 16, 16)
    fast = accelerate(network, inputs)
    assert fast.folded == 0
    torch.testing.assert_close(outputs(fast, inputs), outputs(network, inputs), rtol=0, atol=1e-5)


@pytest.fixture
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("rows", [1, 3, 4, 11])
def test_compiled_for_one_size(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def compiling(network: nn.Module, **options: Any) -> Callable[[Tensor], Tensor]:
        # The backend needs a compiler; how passes are cut does not.
        def run(inputs: Tensor) -> Tensor:
            seen.append(len(inputs))
            return network(inputs)

        return run

    monkeypatch.setattr(torch, "compile", compiling)
    network, inputs = normalised(), images(rows, 16, 16)
    fast = accelerate(network, inputs[:1], compiled_batch_size=4)
    assert fast.compiled
    torch.testing.assert_close(outputs(fast, inputs), outputs(network, inputs), rtol=0, atol=1e-5)
    assert set(seen) == {4}
    assert len(seen) == 1 + {1: 0, 3: 1, 4: 1, 11: 3}[rows]
