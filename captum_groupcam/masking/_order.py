"""Whether the rows of a layer are the samples in their order, asked without gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum

__all__ = ["check_order"]

#: What a network, or a transform, raises for a number of rows that it does not take.
_FAILURES = (RuntimeError, ValueError, AssertionError)


def check_order(
    layer: Module,
    together: Tensor,
    look: Callable[[Tensor], Tensor],
    to_grid: Callable[[Tensor], Tensor],
) -> None:
    """Warns of a layer that has the samples in another order, refuses a transform that mixes them.

    Of two samples one is asked alone. Of more the last, the first and the last again are asked
    together: a network that sorts them has sorted either these or all otherwise than they came, and
    one that turns them around does not turn these.

    Args:
        layer (torch.nn.Module): The layer.
        together (Tensor): What it gave for N samples.
        look (Callable): What it gives for some of them, by their Q indices.
        to_grid (Callable): Brings what it gives to N x K x spatial.

    Raises:
        OutOfMemoryError: If there is no memory for three rows.
        ValueError: If a sample's grid has parts of other samples.

    Warns:
        UserWarning: If it gives for a sample what another had.

    Examples::

        >>> rows = torch.eye(3).unsqueeze(-1)
        >>> check_order(torch.nn.Identity(), rows, lambda some: rows[some], lambda rows: rows)
    """
    grid = to_grid(together)
    last = len(grid) - 1
    some = torch.tensor([last, 0, last] if last > 1 else [0], device=together.device)

    def ask() -> tuple[Tensor, Tensor]:
        again = look(some)
        return again, to_grid(again)

    try:
        again, grid_again = ask()
    except torch.OutOfMemoryError:
        raise
    except _FAILURES:
        # A network that takes one size of batches fails each time, and can't be asked.
        if _fails(ask):
            return
        raise
    if (
        again.dim() != together.dim()
        or len(grid_again) != len(some)
        or grid_again.shape[1:] != grid.shape[1:]
    ):
        return
    if _captum.is_in_other_rows(grid, grid_again, some):
        _captum.warn(_captum.REORDERED.format(_captum.name_of(layer)))
    elif _captum.is_mixed_by(to_grid, together, again, some):
        raise ValueError(_captum.MIXED.format(_captum.name_of(layer)))


def _fails(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except _FAILURES:
        return True
    return False
