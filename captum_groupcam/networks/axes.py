"""Inputs whose axes are not N x C x spatial."""

from __future__ import annotations

from torch import Tensor

__all__ = ["check_axes"]

#: Channels of pictures.
_CHANNELS = (1, 3)


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
