"""Transformers: from tokens and channels-last maps to N x C x spatial, as ``reshape_transform``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor

__all__ = ["FoundGrid", "ReshapeTransform", "channels_first", "token_grid", "tokens_to_grid"]

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


class FoundGrid(partial[Tensor]):
    """:func:`tokens_to_grid` with the grid that was found for inputs of one size.

    Tokens do not tell how they lie: 48 of them are 6 x 8 patches or 8 x 6. So the size of the input
    is kept, and for another size the grid is that of patches of the same size, if the number of
    tokens shows it.

    Attributes:
        input_size (tuple of int): Spatial size of the input that the grid was found for.

    Examples::

        >>> import torch
        >>> found = FoundGrid.of((96, 128), grid=(6, 8), n_prefix=1)
        >>> found(torch.zeros(1, 49, 16)).shape
        torch.Size([1, 16, 6, 8])
        >>> found.at((192, 128))(torch.zeros(1, 97, 16)).shape
        torch.Size([1, 16, 12, 8])
        >>> found.at((128, 96))(torch.zeros(1, 49, 16))
        Traceback (most recent call last):
        ValueError: The reshape_transform was found for an input of 96 x 128, ...
    """

    input_size: tuple[int, ...]
    _size: tuple[int, ...]  # of the input that the tokens are of

    @classmethod
    def of(cls, input_size: Sequence[int], **keywords: Any) -> FoundGrid:
        """The transform for inputs of a size.

        Args:
            input_size (sequence of int): Spatial size of the input.
            **keywords (Any): Those of :func:`tokens_to_grid`, with ``grid`` and ``n_prefix``.

        Returns:
            FoundGrid: The transform.
        """
        found = cls(tokens_to_grid, **keywords)
        found.input_size = found._size = tuple(input_size)
        return found

    def at(self, size: Sequence[int]) -> FoundGrid:
        """The transform for inputs of another size.

        Args:
            size (sequence of int): Spatial size of the input.

        Returns:
            FoundGrid: The transform. It refuses tokens whose number does not show that they are
            patches of the same size as before.
        """
        other = FoundGrid.of(self.input_size, **self.keywords)
        other._size = tuple(size)
        return other

    def __call__(self, tokens: Tensor) -> Tensor:
        """Brings tokens to N x C x grid.

        Args:
            tokens (Tensor): N x T x C, of an input of the size.

        Returns:
            Tensor: N x C x grid.

        Raises:
            ValueError: If the tokens do not fit the grid, or may lie on another.
        """
        if self._size == self.input_size or tokens.dim() != 3:
            return super().__call__(tokens)
        grid, size = tuple(self.keywords["grid"]), self._size
        n_tokens = tokens.shape[1 if self.keywords.get("batch_first", True) else 0]
        n_tokens -= self.keywords["n_prefix"] + self.keywords.get("n_suffix", 0)
        followed = tuple(
            side * cells // before
            for side, cells, before in zip(size, grid, self.input_size, strict=True)
        )
        # As many patches as before may be those of an image that the network has resized.
        told = followed == grid or n_tokens != math.prod(grid)
        if told and n_tokens == math.prod(followed):
            return FoundGrid.of(size, **{**self.keywords, "grid": followed})(tokens)
        may = [one for one in dict.fromkeys((grid, followed)) if math.prod(one) == n_tokens]
        lie = f"may lie on a grid of {' or '.join(map(_text, may))}" if may else "lie otherwise"
        raise ValueError(
            f"The reshape_transform was found for an input of {_text(self.input_size)}, with a "
            f"grid of {_text(grid)}; for one of {_text(size)} the {n_tokens} patches {lie}. Find "
            "it for inputs of this size: captum_groupcam.networks.find_layer(model, inputs), or "
            "find_reshape_transform(model, layer, inputs)."
        )


def _fits(n_tokens: int, grid: Sequence[int], n_prefix: int | None) -> bool:
    """Whether a grid leaves the given number of prefix tokens, or few enough to be that."""
    left = n_tokens - math.prod(grid)
    return left == n_prefix if n_prefix is not None else 0 <= left < min(grid)


def _text(grid: Sequence[int]) -> str:
    return " x ".join(map(str, grid))
