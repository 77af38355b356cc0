"""Whether the rows of a layer are the samples in another order."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["REORDERED", "distinct_weights", "is_in_other_rows", "is_reordered"]

REORDERED = (
    "The rows of the layer {} are not in the order of the samples: the network sorts or turns them "
    "before the layer, so that a sample may get the map of another. Give internal_batch_size=1."
)

#: Share of a row's gradient by which it may differ: weights are powers of two, so all is rounding.
_SHARE = 0.05


def distinct_weights(n_samples: int) -> Tensor:
    """Powers of two, of which scaling makes no rounding; samples near each other get others.

    Args:
        n_samples (int): N.

    Returns:
        Tensor: N numbers of 1, 2, 4 and 8.

    Examples::

        >>> distinct_weights(6)
        tensor([1., 2., 4., 8., 2., 4.])
    """
    n = torch.arange(n_samples)
    return 2.0 ** ((n + n // 4 + n // 16) % 4)


def is_reordered(gradients: Tensor, weighted: Tensor, weights: Tensor) -> bool:
    """Whether weights of the samples reach other rows of a layer than their own.

    Args:
        gradients (Tensor): Of the sum of N values with respect to the layer.
        weighted (Tensor): Those of the weighted sum.
        weights (Tensor): N weights.

    Returns:
        bool: Whether each row has one of the weights, and some have that of another sample, along
        the axes with N rows. False where rows are zero, or mixed.

    Examples::

        >>> gradients, weights = torch.ones(3, 2), distinct_weights(3)
        >>> weighted = weights.view(3, 1) * gradients
        >>> is_reordered(gradients, weighted, weights)
        False
        >>> is_reordered(gradients, weighted.flip(0), weights)
        True
    """
    axes = [axis for axis, size in enumerate(gradients.shape) if size == len(weights)]
    verdicts = [_verdict(gradients, weighted, weights, axis) for axis in axes]
    return "own" not in verdicts and "others" in verdicts


def is_in_other_rows(together: Tensor, again: Tensor, samples: Tensor) -> bool:
    """Whether what a layer gives for some samples again is what others have in the whole.

    Args:
        together (Tensor): N x ..., what it gave for all.
        again (Tensor): Q x ..., what it gave for some of them.
        samples (Tensor): Q indices of these.

    Returns:
        bool: Whether one of them has another row, and is not like its own.

    Examples::

        >>> rows, first = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0])
        >>> is_in_other_rows(rows, rows[:1], first), is_in_other_rows(rows.flip(0), rows[:1], first)
        (False, True)
    """
    wide = torch.promote_types(together.dtype, torch.float32)
    rows, asked = (one.to(wide).flatten(1) for one in (together, again))
    distances = torch.stack([(rows - one).norm(dim=1) for one in asked])
    own = distances.gather(1, samples.unsqueeze(1)).squeeze(1)
    other = own > _SHARE * asked.norm(dim=1)
    return bool((other & (distances.amin(1) <= _SHARE * own)).any())


def _verdict(gradients: Tensor, weighted: Tensor, weights: Tensor, axis: int) -> str:
    """Whether the rows along an axis have their own weights, those of others, or none."""
    wide = torch.promote_types(gradients.dtype, torch.float32)
    before, after = (one.to(wide).movedim(axis, 0).flatten(1) for one in (gradients, weighted))
    weights = weights.to(before)
    size = before.norm(dim=1)
    distinct = torch.unique(weights)
    differences = torch.stack([(after - w * before).norm(dim=1) for w in distinct], 1)
    alike = differences <= _SHARE * size.unsqueeze(1)
    lives = size > 0
    if not lives.any():
        return "own"
    if not (lives.isfinite().all() and alike[lives].any(1).all()):
        return "none"
    found = distinct[alike.float().argmax(1)]
    if torch.equal(found[lives], weights[lives]):
        return "own"
    return "others" if bool((found[lives] != found[lives][0]).any()) else "none"
