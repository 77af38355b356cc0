"""Whether the rows of a layer are the samples in their order, asked without gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum

__all__ = ["warn_of_order"]


def warn_of_order(layer: Module, together: Tensor, look: Callable[[Tensor], Tensor]) -> None:
    """Warns of a layer that has the samples in another order.

    Of two samples one is asked alone. Of more the last, the first and the last again are asked
    together: a network that sorts them has sorted either these or all otherwise than they came, and
    one that turns them around does not turn these.

    Args:
        layer (torch.nn.Module): The layer.
        together (Tensor): What it gave for several samples, N x K x spatial.
        look (Callable): What it gives for some of them, by their Q indices.

    Raises:
        OutOfMemoryError: If there is no memory for three rows.

    Warns:
        UserWarning: If it gives for a sample what another had.

    Examples::

        >>> rows = torch.eye(3).unsqueeze(-1)
        >>> warn_of_order(torch.nn.Identity(), rows, lambda some: rows[some])
    """
    last = len(together) - 1
    some = torch.tensor([last, 0, last] if last > 1 else [0], device=together.device)
    try:
        again = look(some)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        try:
            look(some)
        except (RuntimeError, ValueError, AssertionError):
            return  # a network that takes one size of batches
        raise error  # which had another reason
    same_form = len(again) == len(some) and again.shape[1:] == together.shape[1:]
    if same_form and _captum.is_in_other_rows(together, again, some):
        _captum.warn(_captum.REORDERED.format(_captum.name_of(layer)))
