"""The mean map over inputs that are mirrored and brighter or darker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captum_groupcam.attr._mirrored import has_positions, mirrored
from captum_groupcam.masking.masks import normalize

__all__ = ["FACTORS", "mean_over_altered"]

#: As in pytorch-grad-cam.
FACTORS = (0.9, 1.0, 1.1)


def mean_over_altered(
    explain: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    flip: bool = True,
    factors: Sequence[float] = FACTORS,
    *,
    scaled: bool = False,
) -> tuple[Tensor, ...]:
    """The mean map over altered inputs, see :meth:`Smoothed.attribute`.

    Args:
        explain (Callable): Gives a map for each of some inputs.
        inputs (tuple of Tensor): N x C x spatial each. Those without floating-point values that
            lie over another one, as a mask does, are mirrored only.
        flip (bool, optional): Whether they are mirrored, too. Default: True.
        factors (sequence of float, optional): What they are multiplied by. Default: 0.9, 1, 1.1.
        scaled (bool, optional): Whether each map is brought to [0, 1] first. Default: False.

    Returns:
        tuple of Tensor: As ``explain`` gives them.

    Examples::

        >>> inputs = (torch.tensor([[[1.0, 2.0]]]),)
        >>> mean_over_altered(lambda seen: (seen[0] * torch.tensor([1.0, 0.0]),), inputs)
        (tensor([[[0.5000, 1.0000]]]),)
    """
    total: tuple[Tensor, ...] = ()
    for flipped, factor in itertools.product((False, True)[: 1 + flip], factors):
        seen = mirrored(inputs) if flipped else inputs
        found = explain(tuple(one * factor if has_positions(one) else one for one in seen))
        maps = tuple(_scaled(m.detach()) if scaled else m.detach() for m in found)
        back = tuple(m.flip(-1) if flipped and m.dim() > 2 else m for m in maps)
        total = tuple(map(torch.add, total, back)) if total else back
    count = len(factors) * (1 + flip)
    return tuple(one / count for one in total)


def _scaled(maps: Tensor) -> Tensor:
    return normalize(maps.relu()) if maps.dim() > 2 else maps
