"""How many rows the network sees in one forward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["DEFAULT_BATCH_SIZE", "default_batch_size", "in_chunks"]

#: Rows of one forward pass, by device type; 64 on any other. On the CPU few are fastest: the
#: activations of larger batches outgrow what the allocator keeps, and each is mapped anew.
#: Measured by ``python -m benchmarks speed batch_sizes``.
DEFAULT_BATCH_SIZE = {"cpu": 4}


def default_batch_size(device: torch.device) -> int:
    """Rows of one forward pass that run fast on a device.

    Args:
        device (torch.device): The device.

    Returns:
        int: What :data:`DEFAULT_BATCH_SIZE` has for its type, or 64.

    Examples::

        >>> default_batch_size(torch.device("cuda"))
        64
    """
    return DEFAULT_BATCH_SIZE.get(device.type, 64)


def in_chunks(total: int, size: int, work: Callable[[slice], None]) -> None:
    """Does work on consecutive slices, on smaller ones when the accelerator runs out of memory.

    Args:
        total (int): Length of the whole.
        size (int): Length of a slice, halved whenever ``work`` runs out of memory.
        work (Callable): Called with each slice; must be able to start a slice again.

    Raises:
        torch.OutOfMemoryError: If a slice of one is still too large.

    Examples::

        >>> in_chunks(5, 2, print)
        slice(0, 2, None)
        slice(2, 4, None)
        slice(4, 5, None)
    """
    start = 0
    while start < total:
        stop = min(start + size, total)
        try:
            work(slice(start, stop))
        except torch.OutOfMemoryError:
            if stop - start == 1:
                raise
            size = (stop - start + 1) // 2
        else:
            start = stop
            continue
        # Only here, past the except block, is what the failed slice held free.
        torch.cuda.empty_cache()
