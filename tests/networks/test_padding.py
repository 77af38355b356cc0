"""Convolutions of the accelerated copy do the zero padding before them: the same outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam.networks import accelerate
from captum_groupcam.networks._padding import padding
from tests.toy_networks import hooks, images, seeded

PADS = {1: nn.ZeroPad1d, 2: nn.ZeroPad2d, 3: nn.ZeroPad3d}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
#: What is added at each end, the last axis first.
ENDS = {
    "alike": (1, 1, 2, 2),
    "more behind": (0, 1, 1, 2),
    "more in front": (2, 0, 1, 0),
    "mixed": (0, 1, 2, 1),
}


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("size", [(9, 12), (10, 11)])
def test_a_convolution_that_pads(stride: int, ends: tuple[int, ...], size: tuple[int, int]) -> None:
    convolution = seeded(lambda: nn.Conv2d(4, 4, 3, stride, groups=4))
    inputs = images(2, *size, channels=4)
    expected = convolution(F.pad(inputs, ends))
    before = convolution.weight.clone()
    torch.testing.assert_close(padding(convolution, nn.ZeroPad2d(ends))(inputs), expected)
    assert torch.equal(convolution.weight, before)
    assert convolution.padding == (0, 0)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_signals_and_volumes(dims: int) -> None:
    ends = (1, 2, 0, 1, 2, 2)[: 2 * dims]
    convolution = seeded(lambda: CONVOLUTIONS[dims](3, 5, 3, 2))
    inputs = images(2, *(8, 9, 10)[:dims])
    found = padding(convolution, PADS[dims](ends))(inputs)
    torch.testing.assert_close(found, convolution(F.pad(inputs, ends)))


class Padding(nn.Conv2d):
    """Pads by a module of its own, as TensorFlow's "same" does in EfficientNets."""

    def __init__(self, *args: Any, ends: tuple[int, ...] = (0, 1, 0, 1), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pad = nn.ZeroPad2d(ends)

    def forward(self, inputs: Tensor) -> Tensor:
        """N x C x H x W."""
        return F.conv2d(
            self.pad(inputs),
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


class Padded(nn.Module):
    """Zero padding before convolutions; `read` says what else takes what the first one gives."""

    def __init__(self, read: bool = False, pad: nn.Module | None = None, **options: Any) -> None:
        super().__init__()
        self.read = read
        self.pad = pad or nn.ZeroPad2d((1, 1, 1, 1))
        self.first = nn.Conv2d(3, 8, 3, **options)
        self.norm = nn.BatchNorm2d(8)
        self.second = Padding(8, 8, 3, 2, groups=8)
        self.head = nn.Linear(8, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        """N x 3 x H x W to N x 5."""
        padded = self.pad(inputs)
        features = self.second(self.norm(self.first(padded)).relu()).mean((2, 3))
        if self.read:
            features = features + padded[:, :1, 0, 0] + padded.mean((1, 2, 3))[:, None]
        output: Tensor = self.head(features)
        return output


def accelerated(network: nn.Module) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The padding of each convolution in the copy, whose answers are the same, and warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fast = accelerate(network, images(2, 16, 16))
    inputs = images(3, 16, 16) + 0.1
    with torch.no_grad():
        torch.testing.assert_close(fast(inputs), network(inputs), rtol=1e-4, atol=1e-5)
    copied = fast._copied.network
    assert not hooks(copied).total()
    found = {n: m.padding for n, m in copied.named_modules() if isinstance(m, nn.Conv2d)}
    return found, [str(one.message) for one in caught]


def test_padding_before_a_convolution_and_inside_of_one() -> None:
    network = seeded(Padded).eval()
    assert accelerated(network) == ({"first": (1, 1), "second": (1, 1)}, [])
    assert network.first.padding == (0, 0)
    assert network.second.pad.padding == (0, 1, 0, 1)


NOT_FOLDED: dict[str, Callable[[], nn.Module]] = {
    "not zeros": lambda: Padded(pad=nn.ReflectionPad2d(1)),
    "a constant": lambda: Padded(pad=nn.ConstantPad2d(1, 0.5)),
    "cropped": lambda: Padded(pad=nn.ZeroPad2d((-1, 1, 0, 0))),
    "padded twice": lambda: Padded(padding=1),
    "of another mode": lambda: Padded(padding=1, padding_mode="circular"),
}


@pytest.mark.parametrize("kind", NOT_FOLDED)
def test_other_padding_stays(kind: str) -> None:
    network = seeded(NOT_FOLDED[kind]).eval()
    found, said = accelerated(network)
    assert found == {"first": network.first.padding, "second": (1, 1)}
    assert not said


@pytest.mark.parametrize(("ends", "folded"), [((1, 1, 1, 1), True), ((0, 1, 0, 1), False)])
def test_a_large_kernel_does_not_grow(ends: tuple[int, ...], folded: bool) -> None:
    network = seeded(Padded).eval()
    network.second = seeded(lambda: Padding(8, 64, 3, 2, ends=ends))
    network.head = seeded(lambda: nn.Linear(64, 5))
    assert accelerated(network) == ({"first": (1, 1), "second": (1, 1) if folded else (0, 0)}, [])


def test_padding_that_something_else_reads_stays_with_a_warning() -> None:
    found, (said,) = accelerated(seeded(lambda: Padded(read=True)).eval())
    assert found == {"first": (0, 0), "second": (0, 0)}
    assert "Zero padding stays a layer of its own: " in said


def test_padding_that_runs_twice_or_is_hooked_stays() -> None:
    network = seeded(Padded).eval()
    network.pad = network.second.pad
    found, _ = accelerated(network)
    assert found == {"first": (0, 0), "second": (0, 0)}
    network = seeded(Padded).eval()
    network.second.pad.register_forward_hook(lambda module, args, output: output + 1)
    with torch.no_grad():
        copied = accelerate(network, images(1, 16, 16))._copied.network
        inputs = images(3, 16, 16)
        torch.testing.assert_close(copied(inputs), network(inputs))
    assert copied.second.padding == (0, 0)
