"""Which of several inputs a value in the network depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

__all__ = ["independent_of"]


def independent_of(
    inputs: tuple[Tensor, ...], look: Callable[[tuple[Tensor, ...]], Tensor], asked: Iterable[int]
) -> list[int]:
    """Finds the inputs that a value does not depend on, though it does on another.

    An input is changed and the value compared exactly: one pass, and one for each input that is
    asked about. Further changes, and the other inputs, are tried before it is said that one has no
    effect.

    Args:
        inputs (tuple of Tensor): What the network takes, N x ... each.
        look (Callable): Runs the network for some inputs and gives the value.
        asked (iterable of int): Places of inputs, of shape N x C x spatial.

    Returns:
        list of int: Places of the inputs without effect; none if no input has any, as where a
        ReLU is dead.

    Examples::

        >>> pair = torch.rand(1, 3, 4), torch.rand(1, 3, 4)
        >>> independent_of(pair, lambda inputs: inputs[0].exp(), [0, 1])
        [1]
        >>> independent_of(pair, lambda inputs: inputs[0] * inputs[1], [0, 1])
        []
    """
    before = look(inputs)

    def moves(which: int) -> bool:
        tried = 0
        for other in _changes(inputs[which]):
            try:
                value = look((*inputs[:which], other, *inputs[which + 1 :]))
            except (RuntimeError, ValueError, AssertionError):
                continue  # the network checks its values
            if not torch.equal(before, value):
                return True
            tried += 1
        return not tried

    still = [which for which in asked if not moves(which)]
    others = (
        which for which, one in enumerate(inputs) if which not in still and one.is_floating_point()
    )
    return still if still and any(map(moves, others)) else []


def _changes(one: Tensor) -> Iterator[Tensor]:
    """The input with other values, in the same range first."""
    low, high = float(one.min()), float(one.max())
    noise = torch.rand(one.shape, generator=torch.Generator().manual_seed(0)).to(one)
    yield low + (high - low or 1) * noise
    yield one.flip(tuple(range(2, one.dim())))
    yield -one
    yield torch.zeros_like(one)
