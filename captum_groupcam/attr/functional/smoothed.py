"""The mean map over inputs that are mirrored and brighter or darker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from captum_groupcam.masking.masks import normalize

__all__ = ["FACTORS", "lies_over", "mean_over_altered"]

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
    sizes = {one.shape[2:] for one in inputs if _has_positions(one)}
    total: tuple[Tensor, ...] = ()
    for mirrored, factor in itertools.product((False, True)[: 1 + flip], factors):
        found = explain(tuple(_altered(one, mirrored, factor, sizes) for one in inputs))
        maps = tuple(_scaled(m.detach()) if scaled else m.detach() for m in found)
        back = tuple(m.flip(-1) if mirrored and m.dim() > 2 else m for m in maps)
        total = tuple(map(torch.add, total, back)) if total else back
    count = len(factors) * (1 + flip)
    return tuple(one / count for one in total)


def lies_over(tensor: Tensor, sizes: Collection[torch.Size]) -> bool:
    """Whether a tensor has the positions of an input as its last axes, as a mask of it has.

    Args:
        tensor (Tensor): Of any shape, N x ... as a rule.
        sizes (collection of torch.Size): The spatial sizes of the inputs.

    Returns:
        bool: Whether it has those of one of them, behind at least one other axis.

    Examples::

        >>> lies_over(torch.zeros(2, 8, 6), {torch.Size([8, 6])})
        True
    """
    return any(tensor.dim() > len(s) and tensor.shape[-len(s) :] == s for s in sizes)


def _has_positions(one: Tensor) -> bool:
    return one.is_floating_point() and one.dim() > 2


def _altered(one: Tensor, mirrored: bool, factor: float, sizes: set[torch.Size]) -> Tensor:
    if _has_positions(one):
        return (one.flip(-1) if mirrored else one) * factor
    # A mask of whole numbers, say, goes with its image.
    return one.flip(-1) if mirrored and lies_over(one, sizes) else one


def _scaled(maps: Tensor) -> Tensor:
    return normalize(maps.relu()) if maps.dim() > 2 else maps
