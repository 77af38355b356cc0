"""Inputs whose axes are not N x C x spatial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_groupcam import _captum, _compiled
from captum_groupcam.networks._linear_calls import WatchedFunctions
from captum_groupcam.threads import reached_modules

__all__ = ["check_axes", "check_channels"]

#: Channels of pictures.
_CHANNELS = (1, 3)
#: The same with an alpha channel.
_FEW = (1, 3, 4)
_CONVOLUTIONS = {3: torch.nn.Conv1d, 4: torch.nn.Conv2d, 5: torch.nn.Conv3d}


def check_axes(inputs: Tensor) -> None:
    """Refuses a clip whose frames come before its channels, where its shape says so.

    As a volume it would have a depth of one or three, its channels, and its frames would share one
    map.

    Args:
        inputs (Tensor): N x C x spatial.

    Raises:
        ValueError: If it has three spatial dimensions and looks like N x T x C x H x W.

    Examples::

        >>> import torch
        >>> check_axes(torch.zeros(1, 3, 8, 32, 32))
        >>> check_axes(torch.zeros(1, 8, 3, 32, 32))
        Traceback (most recent call last):
        ValueError: An input of shape (1, 8, 3, 32, 32) looks like N x T x C x H x W, ...
    """
    if inputs.dim() != 5:
        return
    _, first, second, *sides = inputs.shape
    frames_first = second in _CHANNELS and first not in _CHANNELS and first > 1
    if frames_first and min(sides) > 2 * second:
        raise ValueError(
            f"An input of shape {tuple(inputs.shape)} looks like N x T x C x H x W, {first} frames "
            f"of {second} channels. Expected N x C x spatial, here N x C x T x H x W: put a module "
            "around the network whose forward takes that and gives clip.transpose(1, 2) to it, and "
            "transpose the input. A volume that is only so deep has its slices as channels."
        )


def check_channels(
    forward_func: _captum.ForwardFunc,
    inputs: tuple[Tensor, ...],
    arguments: Callable[[], tuple[Any, ...]] = tuple,
) -> None:
    """Refuses an input whose channels come last, N x spatial x C, where the network shows that.

    Nothing is asked of the network unless the sizes give a reason: a last axis of 1, 3 or 4 behind
    larger ones, or one that is the number of channels of a convolution when the first is none. Then
    one sample runs, and the first convolution tells by what it gets.

    Args:
        forward_func (Callable): The network or any modification of its forward function.
        inputs (tuple of Tensor): Inputs, N x ... each.
        arguments (Callable, optional): Gives the additional arguments of a single sample.
            Default: there are none.

    Raises:
        ValueError: If the network brings the last axis of an input to its channels.

    Warns:
        UserWarning: If the sizes of an input look so, and the network does not tell.

    Examples::

        >>> conv = torch.nn.Conv2d(3, 4, 1)
        >>> check_channels(conv, (torch.zeros(1, 3, 32, 32),))
        >>> check_channels(lambda x: conv(x.permute(0, 3, 1, 2)), (torch.zeros(1, 32, 32, 3),))
        Traceback (most recent call last):
        ValueError: An input of shape (1, 32, 32, 3) looks as if its channels came last: ...
    """
    doubtful = [one for one in inputs if _looks_last(one) or _fits_last(one, forward_func)]
    if not doubtful:
        return
    calls = _first_calls(forward_func, tuple(one[:1] for one in inputs), arguments)
    alone = sum(one.is_floating_point() and one.dim() > 2 for one in inputs) == 1
    for one in doubtful:
        last = _is_last(one, calls, alone=alone)
        if last or (last is None and _looks_last(one)):
            shape = tuple(one.shape)
            message = f"An input of shape {shape} looks as if its channels came last"
            expected = "Expected N x C x spatial"
            if last:
                raise ValueError(
                    f"{message}: the network's first convolution gets {shape[-1]} channels. "
                    f"{expected}: wrap the network so that it takes its channels first, and "
                    "permute the input."
                )
            _captum.warn(
                f"{message}. {expected}: if they do, the map is wrong. Wrap the network so that it "
                "takes its channels first, and permute the input."
            )


def _looks_last(one: Tensor) -> bool:
    """Whether sizes alone make it likely."""
    if not (one.is_floating_point() and 3 <= one.dim() <= 5):
        return False
    *others, last = one.shape[1:]
    return last in _FEW and min(others) > max(_FEW)


def _fits_last(one: Tensor, forward_func: _captum.ForwardFunc) -> bool:
    """Whether a convolution takes the last axis for channels, and none the first."""
    kind = _CONVOLUTIONS.get(one.dim())
    if kind is None or not one.is_floating_point():
        return False
    taken = {m.in_channels for m in reached_modules(forward_func) if isinstance(m, kind)}
    return one.shape[-1] in taken and one.shape[1] not in taken


class _Convolutions(WatchedFunctions):
    """Records the sizes of what convolutions get, and their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, ...]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (F.conv1d, F.conv2d, F.conv3d):
            given = args[0] if args else kwargs["input"]
            self.calls.append(tuple(given.shape))
        return func(*args, **(kwargs or {}))


def _first_calls(
    forward_func: _captum.ForwardFunc,
    row: tuple[Tensor, ...],
    arguments: Callable[[], tuple[Any, ...]],
) -> list[tuple[int, ...]]:
    """The sizes of what convolutions get, one after the other."""
    network = _compiled.on_one_device(forward_func)
    with torch.no_grad(), _compiled.uncompiled(), _Convolutions() as seen:
        try:
            network(*(one.clone() for one in row), *arguments())
        except Exception:  # the call itself will say what is wrong
            return seen.calls
    return seen.calls


def _is_last(one: Tensor, calls: list[tuple[int, ...]], *, alone: bool) -> bool | None:
    """Whether the channels of an input come last; None where the network does not tell."""
    first, *others, last = one.shape[1:]
    calls = [sizes for sizes in calls if len(sizes) == one.dim()]
    for sizes in calls:
        if sizes[1:] == (last, first, *others):
            return True
        if sizes[1:] == (first, *others, last):
            return False
    # The input may be padded or resized first.
    if alone and calls and calls[0][1] in (first, last) and _looks_last(one):
        return calls[0][1] == last
    return None
