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

__all__ = ["check_axes", "check_channels", "check_frames"]

#: Channels of pictures.
_CHANNELS = (1, 3)
#: The same with an alpha channel.
_FEW = (1, 3, 4)
#: By the dimensions of what they get.
_CONVOLUTIONS = {3: torch.nn.Conv1d, 4: torch.nn.Conv2d, 5: torch.nn.Conv3d}
#: The functions that they call, and their spatial dimensions.
_FUNCTIONS: dict[Any, int] = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}


def check_axes(
    forward_func: _captum.ForwardFunc,
    inputs: tuple[Tensor, ...],
    which: int = 0,
    arguments: Callable[[], tuple[Any, ...]] = tuple,
) -> None:
    """Refuses a clip whose frames come before its channels, unless the network takes it otherwise.

    As a volume it would have a depth of one or three, its channels, and its frames would share one
    map. Nothing is asked of the network unless the shape looks so. Then the first convolution tells
    which axis it takes for channels; where it does not, the shape decides.

    Args:
        forward_func (Callable): The network or any modification of its forward function.
        inputs (tuple of Tensor): What it runs on, N x ... each.
        which (int, optional): The input that is looked at, N x C x spatial. Default: 0.
        arguments (Callable, optional): Gives the additional forward arguments. Default: none.

    Raises:
        ValueError: If it has three spatial dimensions and looks like N x T x C x H x W, and the
            first convolution does not take dimension 1 as its channels.

    Examples::

        >>> import torch
        >>> frames = torch.nn.Conv2d(3, 4, 3)
        >>> check_axes(lambda clip: frames(clip.flatten(0, 1)), (torch.zeros(1, 8, 3, 32, 32),))
        Traceback (most recent call last):
        ValueError: An input of shape (1, 8, 3, 32, 32) looks like N x T x C x H x W, ...
        >>> check_axes(torch.nn.Conv3d(8, 4, 3), (torch.zeros(1, 8, 3, 32, 32),))
    """
    if not _looks_frames_first(inputs[which]):
        return
    role = _role(forward_func, inputs, arguments, which, 1)
    if role == "channels":
        return
    _, first, second, *_ = inputs[which].shape
    unsaid = (
        f" The network has no convolution that tells. If this is a volume, {first} channels of "
        f"{second} slices, give its slices as channels, inputs.flatten(1, 2), to a module around "
        f"the network whose forward gives inputs.unflatten(1, ({first}, {second})) to it: they "
        "share one map."
    )
    raise ValueError(_frames_first(inputs[which]) + ("" if role else unsaid))


def check_frames(
    forward_func: _captum.ForwardFunc,
    inputs: tuple[Tensor, ...],
    arguments: Callable[[], tuple[Any, ...]] = tuple,
) -> None:
    """Refuses clips whose frames come before their channels, see :func:`check_axes`.

    There may be as many frames as pictures have channels: of N x 3 x 1 x H x W or
    N x 3 x 3 x H x W the shape does not tell which axis has the frames. One frame is changed: the
    first convolution shows whether that is an axis of positions, or of samples, or one of channels.

    Args:
        forward_func (Callable): The network or any modification of its forward function.
        inputs (tuple of Tensor): N x C x spatial each.
        arguments (Callable, optional): Gives the additional forward arguments of the first sample.
            Default: none.

    Raises:
        ValueError: If frames come before channels.

    Warns:
        UserWarning: If the network does not tell.

    Examples::

        >>> conv = torch.nn.Conv2d(3, 8, 3)
        >>> def of_frames(clip):
        ...     return conv(clip.flatten(0, 1)).mean((2, 3)).unflatten(0, clip.shape[:2]).mean(1)
        >>> check_frames(of_frames, (torch.rand(1, 3, 3, 16, 16),))
        Traceback (most recent call last):
        ValueError: An input of shape (1, 3, 3, 16, 16) looks like N x T x C x H x W, 3 frames ...
        >>> check_frames(torch.nn.Conv3d(3, 8, 3), (torch.rand(1, 3, 3, 16, 16),))
    """
    for which, one in enumerate(inputs):
        if not (one.dim() == 5 and one.is_floating_point()):
            continue
        row = tuple(tensor[:1] for tensor in inputs)
        check_axes(forward_func, row, which, arguments)
        _, first, second, *sides = one.shape
        few = first in _CHANNELS and second in _CHANNELS and first + second > 2
        if not few or min(sides) <= 2 * max(first, second):
            continue
        roles = {axis: _role(forward_func, row, arguments, which, axis) for axis in (1, 2)}
        if roles[1] == "frames" or roles[2] == "channels":
            raise ValueError(_frames_first(one))
        if roles[2] != "frames" and roles[1] != "channels":
            _captum.warn(
                f"An input of shape {tuple(one.shape)} is taken for N x C x T x H x W, {first} "
                f"channels of {second} frames or slices, each with a map of its own. If it is "
                "N x T x C x H x W, put a module around the network whose forward takes "
                "N x C x T x H x W and gives clip.transpose(1, 2) to it, and transpose the input."
            )


def _looks_frames_first(one: Tensor) -> bool:
    """Whether an input has as many slices as pictures have channels, and other channels."""
    if one.dim() != 5:
        return False
    _, first, second, *sides = one.shape
    frames_first = second in _CHANNELS and first not in _CHANNELS and first > 1
    return frames_first and min(sides) > 2 * second


def _frames_first(clip: Tensor) -> str:
    """What to do about frames before channels."""
    _, first, second, *_ = clip.shape
    return (
        f"An input of shape {tuple(clip.shape)} looks like N x T x C x H x W, {first} frames "
        f"of {second} channels. Expected N x C x spatial, here N x C x T x H x W: put a module "
        "around the network whose forward takes that and gives clip.transpose(1, 2) to it, and "
        "transpose the input."
    )


def _role(
    forward_func: _captum.ForwardFunc,
    row: tuple[Tensor, ...],
    arguments: Callable[[], tuple[Any, ...]],
    which: int,
    axis: int,
) -> str:
    """What an axis of a clip is to the first convolution, "frames" or "channels", if it tells."""
    if row[which].shape[axis] < 2:
        return ""
    changed = row[which].clone()  # in the first entry of the axis
    entry = changed.select(axis, 0)
    entry.copy_(entry.flip(-1) * 0.5 + 0.25)
    rows = (*row[:which], changed, *row[which + 1 :])
    seen, after = (_watched(forward_func, one, arguments) for one in (row, rows))
    return _role_by_values(seen.first, after.first, len(row[which])) or _role_by_sizes(
        seen.taken or _declared(forward_func), row[which].shape, axis
    )


def _role_by_values(before: Tensor | None, after: Tensor | None, n_samples: int) -> str:
    """The same from what the first convolution gets before and after a change of one entry."""
    if before is None or after is None or before.shape != after.shape:
        return ""
    differs = before != after
    if not differs.any() or differs.all():
        return ""

    def confined(to: int) -> bool:
        """Whether only some entries along an axis have changed."""
        return not differs.movedim(to, 0).flatten(1).any(1).all()

    if confined(0):
        return "frames"
    if differs.dim() < 5:  # frames stacked as channels look like channels
        return "channels" if confined(1) and len(differs) > n_samples else ""
    if confined(1) != confined(2):
        return "channels" if confined(1) else "frames"
    return ""


def _role_by_sizes(taken: tuple[int, int] | None, shape: torch.Size, axis: int) -> str:
    """The same from the dimensions and the channels of the first convolution."""
    if taken is None:
        return ""
    n_dims, channels = taken
    _, first, second, *_ = shape
    fits_one_axis = (channels == first) != (channels == second)
    # As images whose channels are those of all frames, or of all slices.
    may_be_stacked = n_dims == 2 and channels == first * second
    if n_dims not in (2, 3) or not fits_one_axis or may_be_stacked:
        return ""
    return "channels" if channels == shape[axis] else "frames"


def _declared(forward_func: _captum.ForwardFunc) -> tuple[int, int] | None:
    """Dimensions and channels of the first convolution, by its weights; None if there is none."""
    # For TorchScript, exported and quantised networks, which call none by torch's functions.
    for module in reached_modules(forward_func):
        sides, channels = (getattr(module, name, None) for name in ("kernel_size", "in_channels"))
        if isinstance(sides, tuple) and isinstance(channels, int):
            return len(sides), channels
        for weight in module.parameters(recurse=False):
            if weight.dim() in (4, 5):
                return weight.dim() - 2, weight.shape[1]
    return None


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
    calls = _watched(forward_func, tuple(one[:1] for one in inputs), arguments).calls
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
    """Records the sizes of what convolutions get, what the first gets, and what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, ...]] = []
        self.first: Tensor | None = None  # what the first gets
        self.taken: tuple[int, int] | None = None  # its dimensions and channels

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _FUNCTIONS:
            given = args[0] if args else kwargs["input"]
            self.calls.append(tuple(given.shape))
            if self.first is None:
                self.first = given.detach().clone()
                n_dims = _FUNCTIONS[func]
                self.taken = n_dims, given.shape[-n_dims - 1]
        return func(*args, **(kwargs or {}))


def _watched(
    forward_func: _captum.ForwardFunc,
    row: tuple[Tensor, ...],
    arguments: Callable[[], tuple[Any, ...]],
) -> _Convolutions:
    """What convolutions get, one after the other."""
    network = _compiled.on_one_device(forward_func)
    with torch.no_grad(), _compiled.uncompiled(), _Convolutions() as seen:
        try:
            network(*(one.clone() for one in row), *arguments())
        except Exception:  # the call itself will say what is wrong
            return seen
    return seen


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
