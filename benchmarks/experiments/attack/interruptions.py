"""Calls that end early: an error in a forward pass, or an interrupt wherever Python lets one in."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_groupcam.analysis.layer_advice import suggest_layer
from captum_groupcam.augmentation import GradCAMBlur, GroupCAMBlur
from captum_groupcam.methods import METHODS
from captum_groupcam.metrics.functional import (
    DeletionInsertionProtocol,
    average_drop,
    deletion_insertion,
)
from captum_groupcam.networks.check import check_layer
from captum_groupcam.networks.layers import find_layer
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.threads import network_locks

from .attacks import Attack, Outcome
from .threads import network

__all__ = ["ATTACKS"]


class Block(nn.Module):
    """N x T x 8 tokens to the same: each takes up what it attends to."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """A residual connection around attention."""
        attended: Tensor = self.attention(tokens, tokens, tokens)[0]
        return tokens + attended


class Attending(nn.Module):
    """N x 8 x H x W to the same, by attention between positions."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, grid: Tensor) -> Tensor:
        """The positions are tokens."""
        tokens: Tensor = self.block(grid.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(grid.shape)


class Failing(nn.Module):
    """The network of the threads, one of whose passes can fail at its beginning, middle or end.

    Args:
        attends (bool, optional): Whether there is attention in it. Default: False.
    """

    def __init__(self, attends: bool = False) -> None:
        super().__init__()
        self.features, *head = network()
        self.head = nn.Sequential(*([Attending()] if attends else []), *head)
        self.passes, self.failed = 0, False
        self.fails: tuple[int, str, type[BaseException]] | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """N x 3 x 16 x 16 to N x 5."""
        self.passes += 1
        self._fail("start")
        features = self.features(inputs)
        self._fail("middle")
        outputs: Tensor = self.head(features)
        self._fail("end")
        return outputs

    def _fail(self, where: str) -> None:
        if self.fails is not None and self.fails[:2] == (self.passes, where):
            self.failed = True
            raise self.fails[2]("on purpose")


#: A network and inputs to what is done to them.
Call = Callable[[Failing, Tensor], object]
_PROTOCOL = DeletionInsertionProtocol(step=0.25)
_OPTIONS: Mapping[str, dict[str, int]] = {
    "group_cam": {"n_groups": 4},
    "group_cam_gradient_free": {"n_groups": 4},
    "group_cam_consensus": {"n_groups": 4},
    "rise": {"n_masks": 8},
    "xrai": {"n_steps": 2},
    "integrated_gradients": {"n_steps": 4},
    "smooth_grad": {"n_samples": 4},
    "occlusion": {"window": 8},
}
_OF_ATTENTION = ("attention_rollout", "le_grad")
_RAISED = (
    RuntimeError,
    ValueError,
    AssertionError,
    StopIteration,
    torch.OutOfMemoryError,
    KeyboardInterrupt,
)


def _maps(inputs: Tensor) -> Tensor:
    return torch.ones_like(inputs[:, :1]).cumsum(2)


def _method(name: str) -> Call:
    options = _OPTIONS.get(name, {})
    return lambda net, inputs: METHODS[name](net, net.features, **options)(inputs, 1)


def _calls() -> dict[str, Call]:
    """Everything that runs a network."""
    labels = torch.tensor([1, 2])
    return {
        **{name: _method(name) for name, method in METHODS.items() if method.kind == "method"},
        "deletion_insertion": lambda net, inputs: deletion_insertion(
            net, _maps(inputs), inputs, 1, protocol=_PROTOCOL
        ),
        "average_drop": lambda net, inputs: average_drop(net, _maps(inputs), inputs, 1),
        "find_layer": find_layer,
        "check_layer": lambda net, inputs: check_layer(net, TargetLayer(net.features), inputs),
        "suggest_layer": lambda net, inputs: suggest_layer(
            net, inputs, 1, layers=["features.5"], n_groups=2, protocol=_PROTOCOL
        ),
        "GroupCAMBlur": lambda net, inputs: GroupCAMBlur(net, net.features, n_groups=2)(
            inputs, labels
        ),
        "GradCAMBlur": lambda net, inputs: GradCAMBlur(net, net.features)(inputs, labels),
    }


class _Situation:
    """A network, inputs, and what must be as it was."""

    def __init__(self, name: str, *, leaf: bool = False) -> None:
        self.net = Failing(attends=name in _OF_ATTENTION)
        self.net.train("Blur" in name)
        for index, parameter in enumerate(self.net.parameters()):
            parameter.requires_grad_(index % 2 == 0)
            parameter.grad = torch.ones_like(parameter) if index % 2 == 0 else None
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.rand(2, 3, 16, 16, generator=generator).requires_grad_(leaf)
        self._before = self._state()

    def _state(self) -> dict[str, list[Any]]:
        modules, parameters = list(self.net.modules()), list(self.net.parameters())
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return {
            "hooks": [list(getattr(module, name)) for module in modules for name in hooks],
            "training flags": [module.training for module in modules],
            "requires_grad": [parameter.requires_grad for parameter in parameters],
            "gradients": [_copy(parameter.grad) for parameter in parameters],
            "weights": [_copy(tensor) for tensor in self.net.state_dict().values()],
            "grad mode": [torch.is_grad_enabled(), torch.is_inference_mode_enabled()],
            "global generator": [torch.get_rng_state()],
            "inputs": [_copy(self.inputs), _copy(self.inputs.grad), self.inputs.requires_grad],
            "warnings": list(warnings.filters),
            "modes": [len(torch.overrides._get_current_function_mode_stack())],  # type: ignore[no-untyped-call]
        }

    def traces(self) -> list[str]:
        """What is not as it was; a lock that another thread cannot take, too."""
        after = self._state()
        changed = [
            name
            for name, before in self._before.items()
            if len(before) != len(after[name])
            or not all(_equal(a, b) for a, b in zip(before, after[name], strict=True))
        ]
        return changed + ([] if _free(self.net) else ["a lock"])


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return one == other


def _free(net: nn.Module) -> bool:
    """Whether another thread can take the locks of a network."""
    taken: list[bool] = []

    def take() -> None:
        for lock in network_locks(net.modules()):
            taken.append(lock.acquire(blocking=False))
            if taken[-1]:
                lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return all(taken)


def _failing_passes(_folder: Path, small: bool) -> Outcome:
    """Passes fail by several errors, at several places and times."""
    tried, traces = 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # maps of this network may be zero
        for name, call in _calls().items():
            situation = _Situation(name)
            call(situation.net, situation.inputs)
            n_passes = situation.net.passes
            times = sorted({1, 2, max(1, n_passes // 2), n_passes})
            for raised in _RAISED[-1:] if small else _RAISED:
                for where in ("middle",) if small else ("start", "middle", "end"):
                    for at in times[1:2] if small else times:
                        situation = _Situation(name, leaf=where == "middle")
                        situation.net.fails = (at, where, raised)
                        tried += 1
                        found = _interrupted(situation, call, raised)
                        if found:
                            traces.append(f"{name}, {raised.__name__} at {where} {at}: {found}")
    return Outcome(tried, {"traces left": len(traces)}, traces)


def _interrupted(situation: _Situation, call: Call, raised: type[BaseException]) -> list[str]:
    """What is left when a call has been interrupted; looked at while its traceback is alive."""
    try:
        call(situation.net, situation.inputs)
    except BaseException as error:
        found = situation.traces()
        # Python turns one that leaves a generator into a RuntimeError.
        if not isinstance(error, raised) and raised is not StopIteration:
            found.append(f"became {type(error).__name__}: {error}")
        return found
    # What ran out of memory is tried with smaller batches.
    swallowed = raised is not torch.OutOfMemoryError and situation.net.failed
    return situation.traces() + (["swallowed"] if swallowed else [])


class _Interrupter:
    """Raises KeyboardInterrupt where CPython looks for signals: functions begin, or C returns."""

    def __init__(self, at: int | None = None) -> None:
        self.places: list[str] = []
        self._at = at

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if event not in {"call", "c_return"}:
            return
        self.places.append(frame.f_code.co_filename)
        if len(self.places) - 1 == self._at:
            sys.setprofile(None)
            raise KeyboardInterrupt


def _watched(situation: _Situation, call: Call, at: int | None = None) -> list[str]:
    """The files of all places of a call; it is interrupted at one."""
    interrupter = _Interrupter(at)
    try:
        sys.setprofile(interrupter)
        call(situation.net, situation.inputs)
    finally:
        sys.setprofile(None)
    return interrupter.places


def _interrupts(_folder: Path, small: bool) -> Outcome:
    """Interrupts come at any place, half of them where hooks, flags and modes are changed."""
    count = 4 if small else 30
    tried, traces = 0, []
    ignored = sys.unraisablehook
    # An interrupt in a finaliser is reported there, and lost.
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # maps of this network may be zero
            for name, call in _calls().items():
                _watched(_Situation(name), call)  # imports and caches
                places = _watched(_Situation(name), call)
                for at in _drawn(places, count):
                    situation = _Situation(name)
                    found: list[str] = []
                    tried += 1
                    try:
                        _watched(situation, call, at)
                    except BaseException as error:
                        found = situation.traces()
                        if not isinstance(error, KeyboardInterrupt):
                            found.append(f"became {type(error).__name__}: {error}")
                    if found or (found := situation.traces()):
                        traces.append(f"{name}, interrupted at {at} ({places[at]}): {found}")
    finally:
        sys.unraisablehook = ignored
    return Outcome(tried, {"traces left": len(traces)}, traces)


_WHERE = ("captum", "contextlib", "grad_mode", "hooks", "overrides", "warnings", "random")


def _drawn(places: list[str], count: int) -> list[int]:
    """Places of a call: some of all, and as many of those that change what must be put back."""
    rng = np.random.default_rng(0)
    near = [at for at, file in enumerate(places) if any(part in file for part in _WHERE)]
    drawn: set[int] = set()
    for some in (list(range(len(places))), near):
        drawn.update(rng.choice(some, min(count, len(some)), replace=False).tolist())
    return sorted(drawn)


ATTACKS: tuple[Attack, ...] = (
    Attack("forward passes that fail", "interruptions", _failing_passes),
    Attack("interrupts at any place", "interruptions", _interrupts),
)
