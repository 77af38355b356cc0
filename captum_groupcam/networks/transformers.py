"""Transformers: from tokens and channels-last maps to N x C x spatial, as ``reshape_transform``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor

__all__ = ["ReshapeTransform", "channels_first", "token_grid", "tokens_to_grid"]

#: Brings the activations of a layer, and their gradients, to N x C x spatial.
ReshapeTransform: TypeAlias = Callable[[Tensor], Tensor]


def tokens_to_grid(
    tokens: Tensor,
    grid: Sequence[int] | None = None,
    *,
    input_size: Sequence[int] | None = None,
    n_prefix: int | None = None,
    n_suffix: int = 0,
    batch_first: bool = True,
) -> Tensor:
    """Brings the tokens of a transformer back to where their patches lie.

    Give ``grid`` or ``input_size``; as a ``reshape_transform`` for example
    ``functools.partial(tokens_to_grid, grid=(14, 14))``.

    Args:
        tokens (Tensor): N x T x C. Class, distillation and register tokens come first, then the
            patches, row by row, then what there is of other tokens.
        grid (sequence of int, optional): Patches along each axis, h and w. Default: None, found by
            :func:`token_grid`.
        input_size (sequence of int, optional): Spatial size of the network's input, in any unit,
            from which the grid is found. Default: None.
        n_prefix (int, optional): How many tokens come before the patches. Default: None, as many
            as the grid leaves over; they must be fewer than the grid's shortest side.
        n_suffix (int, optional): How many tokens come after the patches. Default: 0.
        batch_first (bool, optional): False if the tokens are T x N x C, as in
            ``torch.nn.MultiheadAttention``. Default: True.

    Returns:
        Tensor: N x C x grid, without the other tokens.

    Raises:
        ValueError: If the tokens have another shape, do not fit the grid, or no grid or several
            have the aspect ratio of the input.

    Examples::

        >>> import torch
        >>> tokens = torch.arange(7.0).view(1, 7, 1)  # a class token and 2 x 3 patches
        >>> tokens_to_grid(tokens, (2, 3))
        tensor([[[[1., 2., 3.],
                  [4., 5., 6.]]]])
        >>> tokens_to_grid(tokens, input_size=(32, 48)).shape
        torch.Size([1, 1, 2, 3])
    """
    if tokens.dim() != 3:
        raise ValueError(f"Expected tokens of shape N x T x C, got {tuple(tokens.shape)}.")
    if not batch_first:
        tokens = tokens.transpose(0, 1)
    n_tokens = tokens.shape[1] - n_suffix
    if (grid is None) == (input_size is None):
        raise ValueError("Give either the grid of the patches or the input_size to find it by.")
    if grid is None:
        assert input_size is not None
        grid = token_grid(n_tokens, input_size, n_prefix=n_prefix)
    elif not _fits(n_tokens, grid, n_prefix):
        before = "few prefix tokens" if n_prefix is None else f"{n_prefix} prefix tokens"
        after = f" with {n_suffix} tokens behind it" if n_suffix else ""
        raise ValueError(
            f"{tokens.shape[1]} tokens are not {before} and a grid of {tuple(grid)} patches"
            f"{after}. Give the grid that belongs to the size of the input."
        )
    patches = tokens[:, n_tokens - math.prod(grid) : n_tokens]
    return patches.transpose(1, 2).reshape(len(tokens), -1, *grid)


def token_grid(
    n_tokens: int, input_size: Sequence[int], *, n_prefix: int | None = None
) -> tuple[int, ...]:
    """Finds the grid of patches behind a number of tokens by the aspect ratio of the input.

    Args:
        n_tokens (int): T, with prefix tokens.
        input_size (sequence of int): Spatial size of the input; each side is a whole number of
            patches, which are as wide as high.
        n_prefix (int, optional): How many tokens come before the patches. Default: None, any
            number below the grid's shortest side.

    Returns:
        tuple of int: Patches along each axis.

    Raises:
        ValueError: If there is no such grid, or more than one.

    Examples::

        >>> token_grid(197, (224, 224))
        (14, 14)
        >>> token_grid(1 + 4 + 12 * 20, (192, 320))
        (12, 20)
    """
    sides = math.gcd(*input_size)
    shape = [size // sides for size in input_size]
    grids = [tuple(side * n for side in shape) for n in range(1, sides + 1) if sides % n == 0]
    found = [grid for grid in grids if _fits(n_tokens, grid, n_prefix)]
    if len(found) == 1:
        return found[0]
    which = f"several grids, {found}," if found else "no grid"
    raise ValueError(
        f"{n_tokens} tokens fit {which} of square patches of an input of size "
        f"{tuple(input_size)}. Give the grid of the patches."
    )


def channels_first(maps: Tensor) -> Tensor:
    """Moves the channels of channels-last maps (N x spatial x C), as Swin's, to the front.

    Args:
        maps (Tensor): N x spatial x C.

    Returns:
        Tensor: N x C x spatial.

    Examples::

        >>> import torch
        >>> channels_first(torch.zeros(2, 7, 5, 96)).shape
        torch.Size([2, 96, 7, 5])
    """
    return maps.movedim(-1, 1)


def _fits(n_tokens: int, grid: Sequence[int], n_prefix: int | None) -> bool:
    """Whether a grid leaves the given number of prefix tokens, or few enough to be that."""
    left = n_tokens - math.prod(grid)
    return left == n_prefix if n_prefix is not None else 0 <= left < min(grid)
