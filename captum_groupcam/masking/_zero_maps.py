"""Warnings of maps that are zero."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import TypeVar

import torch
from torch import Tensor

from captum_groupcam import _captum

__all__ = ["expecting_zero_maps", "warn_of_zero_maps"]

_Result = TypeVar("_Result")

_EXPECTED: ContextVar[bool] = ContextVar("_EXPECTED", default=False)


def expecting_zero_maps(work: Callable[[], _Result]) -> _Result:
    """Does work, and says nothing of maps that are zero meanwhile.

    Args:
        work (Callable): The work.

    Returns:
        Any: What the work returns.

    Examples::

        >>> expecting_zero_maps(lambda: warn_of_zero_maps(None, (torch.zeros(1, 1, 2),)))
    """
    context = copy_context()
    context.run(_EXPECTED.set, True)
    return context.run(work)


def warn_of_zero_maps(queried: Tensor | None, maps: tuple[Tensor, ...] = ()) -> None:
    """Warns, on behalf of the caller of ``attribute``, of samples whose maps are zero.

    Args:
        queried (Tensor or None): N x G booleans: which masks were queried; None for a method
            without masks.
        maps (tuple of Tensor, optional): The maps of each input, N x ... each. Default: (), no
            matter what they are.

    Examples::

        >>> warn_of_zero_maps(torch.tensor([[True, False]]))
        >>> warn_of_zero_maps(None, (torch.ones(1, 1, 2), torch.zeros(1, 1)))
    """
    if _EXPECTED.get() or not (maps or queried is not None):
        return
    zero = torch.stack([~m.detach().flatten(1).any(1) for m in maps]).all(0) if maps else None
    if queried is None:
        _warn(zero, _NO_VALUE)
        return
    asked = queried.any(1)
    _warn(~asked, _NO_MASK)
    _warn(None if zero is None else zero & asked, _NO_RISE)


_NO_MASK = "every mask is flat, or the input equals its baseline."
_NO_RISE = (
    "no mask raised the score of the target. Ask for another class, or for the signed map with "
    "relu_attributions=False where the method has it."
)
_NO_VALUE = (
    "activations or gradients are, or no value is positive where the others are dropped "
    "(relu_attributions=True). Ask for another class, or choose another layer."
)


def _warn(samples: Tensor | None, reason: str) -> None:
    if samples is not None and samples.any():
        dead = samples.nonzero().flatten().tolist()
        _captum.warn(f"The maps of samples {dead} are zero: {reason}")
