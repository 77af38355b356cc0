"""Processes of one run that begin and end together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import nn

from .configuration import ConfigurationError, fingerprint

__all__ = ["check_networks", "end_together", "in_first"]


def in_first(fabric: Fabric, action: Callable[[], None]) -> None:
    """Does something in the first process; the others wait, and end if it fails.

    Args:
        fabric (Fabric): The processes.
        action (callable): What is done.

    Raises:
        Exception: In the first process, what `action` raises.
        SystemExit: In the others, if it does.
    """
    failure: Exception | None = None
    if fabric.is_global_zero:
        try:
            action()
        except Exception as error:  # raised again below
            failure = error
    end_together(fabric, failure)


def end_together(fabric: Fabric, failure: Exception | None) -> None:
    """Waits for all processes; if one has failed, it says so and the others end without a word.

    Args:
        fabric (Fabric): The processes.
        failure (Exception or None): What went wrong in this one.

    Raises:
        Exception: `failure`, if there is one.
        SystemExit: If there is none, but in another process.
    """
    failures = _count(fabric, failure is not None)
    if failure is not None:
        raise failure
    if failures:
        raise SystemExit(1)


def check_networks(fabric: Fabric, network: nn.Module) -> None:
    """Ends the run unless all processes have the same network.

    Args:
        fabric (Fabric): The processes.
        network (nn.Module): The network of this one.

    Raises:
        ConfigurationError: In the first process, if another has other weights.
        SystemExit: In the others.
    """
    own = fingerprint(network)
    different = _count(fabric, own != fabric.broadcast(own))
    failure = None
    if different and fabric.is_global_zero:
        failure = ConfigurationError(
            f"{different} of {fabric.world_size} processes have loaded other weights than the "
            "first: their rows would be of different networks. Give weights that are the same in "
            "all processes, a file for example."
        )
    end_together(fabric, failure)


def _count(fabric: Fabric, value: bool) -> int:
    """In how many processes something is so."""
    ones = torch.tensor(float(value), device=fabric.device)
    return int(fabric.all_reduce(ones, reduce_op="sum"))  # type: ignore[arg-type]
