"""What a step of a run takes, what it warns of, and how it fails."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch.nn import Module

from captum_groupcam.images import ImageError

from ..errors import DeviceError
from .network import counted

__all__ = ["Seen", "check_device", "free_memory", "observed", "reason_of", "shared_out", "wait_for"]
__all__ += ["is_out_of_memory"]

#: ``seconds``, ``queries``, ``warnings`` and ``error``, as a row has them.
Seen: TypeAlias = dict[str, Any]


@contextmanager
def observed(network: Module, device: torch.device) -> Iterator[Seen]:
    """Notes seconds, queries, warnings, and the error that ends the block.

    Args:
        network (torch.nn.Module): Whose queries are counted.
        device (torch.device): Where it works.

    Yields:
        dict: What is noted, complete after the block.
    """
    seen: Seen = {"error": None}
    used_up = False
    start = time.perf_counter()
    with counted(network) as queries, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            wait_for(device)
            start = time.perf_counter()
            yield seen
            wait_for(device)
        except Exception as error:  # becomes a row: one sample does not end the run
            seen["error"], used_up = reason_of(error), is_out_of_memory(error)
        if used_up:
            free_memory(device)
    seen["seconds"] = round(time.perf_counter() - start, 6)
    seen["queries"] = queries.count
    seen["warnings"] = sorted({str(warning.message) for warning in caught})


def shared_out(seen: Seen, count: int) -> list[Seen]:
    """What each of several samples has of what was seen of them together: equal parts.

    Args:
        seen (dict): Of :func:`observed`.
        count (int): Number of samples.

    Returns:
        list of dict: For each sample; queries are whole, so that the first ones may have one more.

    Examples::

        >>> [part["queries"] for part in shared_out({"seconds": 1.0, "queries": 5}, 2)]
        [3, 2]
    """
    each, more = divmod(seen["queries"], count)
    seconds = round(seen["seconds"] / count, 6)
    return [
        {**seen, "seconds": seconds, "queries": each + (place < more)} for place in range(count)
    ]


def reason_of(error: Exception) -> str:
    """An error as a row says it."""
    return str(error) if isinstance(error, ImageError) else f"{type(error).__name__}: {error}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was used up."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "memory" in str(error)


def free_memory(device: torch.device) -> None:
    """Frees what a call without enough memory has left behind."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def wait_for(device: torch.device) -> None:
    """Waits until an accelerator has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check_device(device: torch.device, *samples: str) -> None:
    """Ends the run if the next sample would fail, too, for what these did to the device.

    Args:
        device (torch.device): The device.
        *samples (str): Names of the last samples.

    Raises:
        DeviceError: If it answers no more.
    """
    try:
        torch.ones(1, device=device).sum().item()
    except Exception as error:
        since = f"{device} answers no more since "
        advice = "All rows are kept; the same command continues after it."
        if len(samples) > 1:
            advice = (
                "All rows are kept; with --samples-per-batch 1 the same command continues, and "
                "finds the one."
            )
        raise DeviceError(
            f"{since}{'sample' if len(samples) == 1 else 'one of the samples'} "
            f"{', '.join(samples)} ({reason_of(error)}). {advice}"
        ) from error
