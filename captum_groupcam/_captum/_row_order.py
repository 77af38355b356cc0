"""Whether the rows of a layer are the samples in another order, or of several samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["MIXED", "REORDERED", "distinct_weights"]
__all__ += ["is_in_other_rows", "is_mixed", "is_mixed_by", "is_reordered"]

REORDERED = (
    "The rows of the layer {} are not in the order of the samples: the network sorts or turns them "
    "before the layer, so that a sample may get the map of another. Give internal_batch_size=1."
)

MIXED = (
    "What reshape_transform makes of one sample of the layer {} has parts of others: its rows are "
    "not put together as the network puts them, so that the map depends on which samples are in "
    "one pass. Expected N x C x spatial with a row for each sample, made of nothing but its own. "
    "If T rows of a sample follow each other, as after clip.flatten(0, 1), that begins with "
    "rows.unflatten(0, (-1, T)); if those of the same place do, with "
    "rows.unflatten(0, (T, -1)).transpose(0, 1)."
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


def is_mixed(gradients: Tensor, weighted: Tensor, weights: Tensor) -> bool:
    """Whether weights of several samples are in one row of what gradients were brought to.

    Args:
        gradients (Tensor): Of the sum of N values, brought to N x K x spatial.
        weighted (Tensor): Those of the weighted sum, in the same way.
        weights (Tensor): N weights.

    Returns:
        bool: Whether all values have one of the weights, and some row has two of them. False where
        there are values with none, as in a network that mixes the samples itself.

    Examples::

        >>> weights = distinct_weights(2)
        >>> weighted = weights.view(2, 1).expand(2, 4)
        >>> is_mixed(torch.ones(2, 4), weighted, weights)
        False
        >>> is_mixed(torch.ones(2, 4), weighted.reshape(4, 2).T, weights)
        True
    """
    if gradients.shape != weighted.shape or len(gradients) != len(weights):
        return False
    wide = torch.promote_types(gradients.dtype, torch.float32)
    before, after = (one.to(wide).flatten(1) for one in (gradients, weighted))
    size = before.abs()
    lives = size > 1e-3 * size.amax(1, keepdim=True)
    n_alive = lives.sum(1)
    shares = torch.stack(
        [
            ((after - w * before).abs() <= _SHARE * size).logical_and(lives).sum(1)
            / n_alive.clamp(min=1)
            for w in torch.unique(weights.to(before))
        ]
    )
    known = bool(((shares.sum(0) >= 0.99) | (n_alive == 0)).all())
    return known and bool(((shares > 0.01).sum(0) > 1).any())


def is_mixed_by(
    transform: Callable[[Tensor], Tensor], together: Tensor, again: Tensor, samples: Tensor
) -> bool:
    """Whether a transform gives for samples something else than in the whole, of the same rows.

    Args:
        transform (Callable): Turns what a layer gives into a row for each sample.
        together (Tensor): What it gave for N samples.
        again (Tensor): What it gave for Q of them.
        samples (Tensor): Q indices of these.

    Returns:
        bool: Whether the rows of the layer, along the one axis that grows with the samples, are
        those it had in the whole, and a row of what they become is not. False where the network
        itself gives other rows.

    Examples::

        >>> rows, first = torch.arange(4.0).view(4, 1) + 1, torch.tensor([0])
        >>> is_mixed_by(lambda some: some.view(-1, 2), rows, rows[:2], first)
        False
        >>> is_mixed_by(lambda some: some.view(2, -1).T, rows, rows[:2], first)
        True
    """
    grown = [
        axis
        for axis, sizes in enumerate(zip(together.shape, again.shape, strict=True))
        if sizes[0] != sizes[1]
    ]
    whole, some = transform(together), transform(again)
    wide = torch.promote_types(whole.dtype, torch.float32)
    before, after = whole[samples].to(wide).flatten(1), some.to(wide).flatten(1)
    if ((before - after).norm(dim=1) <= _SHARE * after.norm(dim=1)).all() or len(grown) > 1:
        return False
    axis = grown[0] if grown else 0
    rows, asked = (one.to(wide).movedim(axis, 0).flatten(1) for one in (together, again))
    return all(bool(((rows - one).norm(dim=1) <= _SHARE * one.norm()).any()) for one in asked)


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
