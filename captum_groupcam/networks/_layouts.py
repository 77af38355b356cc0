"""How the values of a layer may lie on a grid: what a shape admits, for evidence to choose from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_groupcam.networks.transformers import (
    FoundGrid,
    ReshapeTransform,
    channels_first,
)

__all__ = ["MAPS", "Form", "Layout", "forms", "layouts"]

#: Of a grid that no layer before had: class, distillation and register tokens beside it, and
#: patches. Fewer lie on some grid by chance.
MAX_OTHER_TOKENS = 8
MIN_PATCHES = 9


@dataclass(frozen=True)
class Form:
    """Which dimensions of a tensor are samples, channels and positions.

    Attributes:
        batch_dim (int): The dimension of the samples.
        channels_last (bool): Whether channels come last rather than after the samples.
        tokens (bool): Whether positions are one dimension that is to become a grid.
    """

    batch_dim: int = 0
    channels_last: bool = False
    tokens: bool = False

    def sum_channels(self, values: Tensor) -> Tensor:
        """The sum over channels for the first sample: one value a position."""
        return values.select(self.batch_dim, 0).sum(-1 if self.channels_last else 0)

    def by_channel(self, values: Tensor) -> Tensor:
        """The values of the first sample as channels x positions (flat)."""
        first = values.select(self.batch_dim, 0)
        return (first.movedim(-1, 0) if self.channels_last else first).flatten(1)

    def spread(self, positions: Tensor) -> Tensor:
        """Values of positions in a shape that broadcasts to that of the tensor."""
        channels = positions.unsqueeze(-1 if self.channels_last else 0)
        return channels.unsqueeze(self.batch_dim)


MAPS = Form()
CHANNELS_LAST = Form(channels_last=True)
TOKENS = Form(channels_last=True, tokens=True)
TOKENS_FIRST = Form(batch_dim=1, channels_last=True, tokens=True)


def forms(shape: torch.Size, n_samples: int, n_dims: int) -> list[Form]:
    """The forms that a shape admits, with more than one position.

    One channel after the positions is none: a pooled vector, of as many positions as it has
    channels, looks like that.

    Args:
        shape (torch.Size): Of a layer's output.
        n_samples (int): N.
        n_dims (int): How many spatial dimensions the input has.

    Returns:
        list of Form: None, one or two.
    """
    found = []
    if len(shape) == n_dims + 2 and shape[0] == n_samples:
        found += [MAPS] * (shape[2:].numel() > 1)
        several = sum(side > 1 for side in shape[1:-1])
        found += [CHANNELS_LAST] * (several > 1 and shape[-1] > 1)
    if len(shape) == 3 and shape[-1] > 1:
        found += [TOKENS] * (shape[0] == n_samples and shape[1] > 1)
        found += [TOKENS_FIRST] * (shape[1] == n_samples and shape[0] > 1)
    return found


@dataclass(frozen=True)
class Layout:
    """A form, and for tokens the grid that they lie on.

    Attributes:
        form (Form): Which dimensions are which.
        grid (tuple of int): Positions along each axis.
        n_prefix (int): Tokens before the grid.
        n_suffix (int): Tokens behind it.
        traced (bool): Whether the network has had this grid before, or the shape is a grid.
        size (tuple of int): Spatial size of the input; of tokens, whose grid follows from it.
    """

    form: Form
    grid: tuple[int, ...]
    n_prefix: int = 0
    n_suffix: int = 0
    traced: bool = True
    size: tuple[int, ...] = ()

    @property
    def transform(self) -> ReshapeTransform | None:
        """What brings the layer to N x C x grid; None if that is what it is."""
        if not self.form.tokens:
            return channels_first if self.form.channels_last else None
        suffix = {"n_suffix": self.n_suffix} if self.n_suffix else {}
        first = {"batch_first": False} if self.form.batch_dim else {}
        return FoundGrid.of(self.size, grid=self.grid, n_prefix=self.n_prefix, **suffix, **first)

    def arrange(self, positions: Tensor) -> Tensor:
        """Brings values of positions (... x positions of the form) to ... x grid."""
        if not self.form.tokens:
            return positions
        patches = positions.narrow(-1, self.n_prefix, math.prod(self.grid))
        return patches.reshape(*positions.shape[:-1], *self.grid)

    @property
    def others(self) -> Tensor | None:
        """Which values are of tokens beside the grid, to broadcast; None if there are none."""
        if not self.n_prefix + self.n_suffix:
            return None
        return self.form.spread(~self._tokens(torch.ones(self.grid, dtype=torch.bool)))

    def values_at(self, positions: Tensor) -> Tensor:
        """Which values lie at some positions (true on the grid), to broadcast to the tensor."""
        return self.form.spread(self._tokens(positions) if self.form.tokens else positions)

    def _tokens(self, positions: Tensor) -> Tensor:
        """Positions of the grid among all tokens."""
        return F.pad(positions.flatten(), (self.n_prefix, self.n_suffix))

    def __str__(self) -> str:
        grid = " x ".join(map(str, self.grid))
        if not self.form.tokens:
            return f"a grid of {grid}, channels {'last' if self.form.channels_last else 'first'}"
        where = f"a grid of {grid}"
        others = [f"{self.n_prefix} tokens"] * bool(self.n_prefix)
        return f"{where} behind {others[0]}" if others else where


def layouts(
    form: Form, shape: torch.Size, size: torch.Size, seen: Iterable[tuple[int, ...]]
) -> Iterator[Layout]:
    """The layouts of a form, those on grids that the network has had before first.

    Tokens may lie on any grid that was seen, or whose patches are equal parts of the input, of any
    aspect ratio. With others among them, these may come before or behind.

    Args:
        form (Form): One of the shape's forms.
        shape (torch.Size): Of a layer's output.
        size (torch.Size): Spatial size of the input.
        seen (iterable of tuple of int): Grids of maps in the network.

    Yields:
        Layout: One after the other.
    """
    if not form.tokens:
        yield Layout(form, tuple(shape[1:-1] if form.channels_last else shape[2:]))
        return
    n_tokens = shape[1 - form.batch_dim]
    known = {grid for grid in seen if math.prod(grid) <= n_tokens < 2 * math.prod(grid)}
    divisors = [[n for n in range(1, side + 1) if side % n == 0] for side in size]
    equal = {
        grid
        for grid in itertools.product(*divisors)
        if 0 <= n_tokens - math.prod(grid) <= min(MAX_OTHER_TOKENS, math.prod(grid) // 2)
        and math.prod(grid) >= MIN_PATCHES
    }
    for grids, traced in [(known, True), (equal - known, False)]:
        for grid in sorted(grids):
            others = n_tokens - math.prod(grid)
            if math.prod(grid) > 1:
                for n_prefix in range(others, -1, -1):
                    yield Layout(form, grid, n_prefix, others - n_prefix, traced, tuple(size))
