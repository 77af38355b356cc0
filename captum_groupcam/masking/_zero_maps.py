"""Maps that are zero, or the same everywhere, up to rounding; and warnings of them."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import TypeVar

import torch
from torch import Tensor

from captum_groupcam import _captum

__all__ = [
    "ROUNDING_OF_SCORES",
    "all_alike",
    "expecting_zero_maps",
    "leveled",
    "warn_of_zero_maps",
    "without_rounding",
]

_Result = TypeVar("_Result")

#: In units of the last place of the largest number: what rounding may leave of a difference.
_ROUNDING = 64
#: The same of the score of a network, of which little more is left where it is saturated.
ROUNDING_OF_SCORES = 4

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


def without_rounding(values: Tensor, magnitudes: Tensor, units: int = _ROUNDING) -> Tensor:
    """Zero for samples whose values are no more than the rounding of what is added up in them.

    Where contributions cancel, as the gradients before a layer norm do over its channels, rounding
    is left of their sum, which a picture would scale up to a map.

    Args:
        values (Tensor): N x ..., sums.
        magnitudes (Tensor): N x ..., the same sums of magnitudes.
        units (int, optional): How much is rounding, in units of the last place of the largest
            magnitude. Default: 64.

    Returns:
        Tensor: The values, N x ...

    Examples::

        >>> terms = torch.tensor([[[1.0, -1.0 + 1e-7]], [[1.0, -0.9]]])
        >>> without_rounding(terms.sum(2), terms.abs().sum(2))
        tensor([[0.0000],
                [0.1000]])
    """
    least = units * torch.finfo(values.dtype).eps * magnitudes.flatten(1).abs().amax(1)
    rounding = values.flatten(1).abs().amax(1) <= least
    return values.masked_fill(rounding.view(-1, *[1] * (values.dim() - 1)), 0)


def leveled(maps: Tensor) -> Tensor:
    """Gives one value to maps that are the same everywhere but for rounding.

    Args:
        maps (Tensor): N x 1 x spatial.

    Returns:
        Tensor: The maps, N x 1 x spatial.

    Examples::

        >>> leveled(torch.tensor([[[3.0, 3.0 + 3e-7]], [[1.0, 2.0]]])).diff()
        tensor([[[0.]],
        <BLANKLINE>
                [[1.]]])
    """
    flat = maps.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    rounding = _ROUNDING * torch.finfo(maps.dtype).eps * torch.maximum(low.abs(), high.abs())
    shape = (-1, *[1] * (maps.dim() - 1))
    return torch.where((high - low <= rounding).view(shape), high.view(shape), maps)


def all_alike(scores: Tensor, queried: Tensor) -> Tensor:
    """Whether a sample has one score through all of its masks, up to rounding.

    Args:
        scores (Tensor): N x G, or N x G x T for T targets.
        queried (Tensor): N x G booleans: which masks were queried.

    Returns:
        Tensor: N booleans; false where fewer than two masks were queried, and true where it is so
        of one of the targets.

    Examples::

        >>> scores = torch.tensor([[1.0, 1.0 + 1e-7, 0.0], [1.0, 0.9, 0.8]])
        >>> all_alike(scores, scores > 0)
        tensor([ True, False])
    """
    of_targets = scores.unsqueeze(-1) if scores.dim() == 2 else scores
    asked = queried.unsqueeze(-1)
    low = of_targets.masked_fill(~asked, torch.inf).amin(1)
    high = of_targets.masked_fill(~asked, -torch.inf).amax(1)
    least = ROUNDING_OF_SCORES * torch.finfo(scores.dtype).eps
    alike = high - low <= least * torch.maximum(low.abs(), high.abs())
    return alike.any(1) & (queried.sum(1) > 1)


def warn_of_zero_maps(
    queried: Tensor | None,
    maps: tuple[Tensor, ...] = (),
    *,
    unmoved: Tensor | None = None,
    unmoved_maps: str = "",
    signed: bool = False,
) -> None:
    """Warns, on behalf of the caller of ``attribute``, of maps that are zero, or say nothing else.

    Args:
        queried (Tensor or None): N x G booleans: which masks were queried; None for a method
            without masks.
        maps (tuple of Tensor, optional): The maps of each input, N x ... each. Default: (), no
            matter what they are.
        unmoved (Tensor, optional): N booleans: of which samples no mask moved the score.
            Default: None, that is not known.
        unmoved_maps (str, optional): What their maps are then. Default: "", the sum of their masks.
        signed (bool, optional): Whether the maps have their negative values, too. Default: False.

    Examples::

        >>> warn_of_zero_maps(torch.tensor([[True, False]]))
        >>> warn_of_zero_maps(None, (torch.ones(1, 1, 2), torch.zeros(1, 1)))
    """
    if _EXPECTED.get() or not (maps or queried is not None):
        return
    zero = torch.stack([~m.detach().flatten(1).any(1) for m in maps]).all(0) if maps else None
    if queried is None:
        _warn(zero, _NO_VALUE)
        if maps and all(one[0].numel() > 1 for one in maps):
            same = torch.stack([_is_flat(one) for one in maps]).all(0)
            _warn(same if zero is None else same & ~zero, _SAME, "the same everywhere")
        return
    asked = queried.any(1)
    _warn(~asked, _NO_MASK)
    unmoved = torch.zeros_like(asked) if unmoved is None else unmoved & asked
    if zero is not None:
        _warn(zero & unmoved, _NO_MOVE)
        _warn(zero & asked & ~unmoved, _NO_RISE + (_RISE_OF_SIGNED if signed else _OR_SIGNED))
        unmoved = unmoved & ~zero
    _warn(unmoved, _NO_MOVE, unmoved_maps or "the sum of their masks, and show nothing else")


_NO_MASK = "every mask is flat, or the input equals its baseline."
_NO_RISE = "no mask raised the score of the target. Ask for another class, or for "
_OR_SIGNED = "the signed map with relu_attributions=False where the method has it."
_RISE_OF_SIGNED = "groups that lower the score, too, with relu_scores=False."
_NO_MOVE = (
    "no mask moved the score of the target. So it is with a network that is saturated, or whose "
    "output is constant. Give score_func=captum_groupcam.masking.network.raw_score, the output "
    "as it is, where the softmax is the score; otherwise another baseline, or another class."
)
_NO_VALUE = (
    "activations or gradients are, what is added up cancels, or no value is positive where the "
    "others are dropped (relu_attributions=True). Ask for another class, or choose another layer."
)
_SAME = (
    "they do not say where. So it is with gradients at a layer whose mean is taken next. Choose "
    "another method, or an earlier layer."
)


def _is_flat(maps: Tensor) -> Tensor:
    """Which samples' maps are the same everywhere."""
    flat = maps.detach().flatten(1)
    return flat.amin(1) == flat.amax(1)


def _warn(samples: Tensor | None, reason: str, are: str = "zero") -> None:
    if samples is not None and samples.any():
        dead = samples.nonzero().flatten().tolist()
        _captum.warn(f"The maps of samples {dead} are {are}: {reason}")
