"""Additional arguments that are lists or arrays with an entry for each sample."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.masking._arguments import Entries, dealing, listed
from captum_groupcam.masking._scores import with_rows
from captum_groupcam.masking.network import Network
from captum_groupcam.networks._sameness import Rounding, precision_of

__all__ = ["with_entries"]

#: How a sample is answered alone: not at all, otherwise than beside others, or as there.
_FAILS, _OTHER, _SAME = range(3)
#: What a network raises for entries that do not belong to its rows.
_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AssertionError)


def with_entries(network: Network, inputs: tuple[Tensor, ...]) -> Network:
    """Deals out what has an entry for each sample, such as captions, where the network shows it.

    A list may also belong to all samples, such as the names of the classes or a size. So it stays
    whole where a sample is answered alone as it is beside others. Where it is not, but is with its
    own entry, or only with that at all, each row gets the entry of its sample.

    Args:
        network (Network): The network with its arguments.
        inputs (tuple of Tensor): Inputs, N x ... each.

    Returns:
        Network: The same, or one that deals out more.

    Raises:
        OutOfMemoryError: If there is no memory for a few rows.
    """
    n_samples = network.n_samples
    found = listed(network.additional_forward_args, n_samples)
    if not found:
        return network
    # Entries that are equal show nothing.
    entries = [Entries(one) for one in found.values()]
    differs = (n for n in range(1, n_samples) if any(int(one[n]) for one in entries))
    last = next(differs, min(n_samples - 1, 1))
    rows = torch.arange(last + 1) if last else torch.zeros(2, dtype=torch.long)
    rows = rows.to(inputs[0].device)
    best, chosen = _agreement(network, inputs, rows), network
    ways = [[name] for name in found] + ([list(found)] if len(found) > 1 else [])
    for names in ways:
        if best == _SAME:
            break
        arguments = dealing(network.additional_forward_args, names)
        other = replace(network, additional_forward_args=arguments)
        agreement = _agreement(other, inputs, rows)
        if agreement > best:
            best, chosen = agreement, other
    return chosen


def _agreement(network: Network, inputs: tuple[Tensor, ...], rows: Tensor) -> int:
    """Whether the last of some rows gets the same answer alone and beside the others."""
    try:
        alone, beside = (_answers(network, inputs, some) for some in (rows[-1:], rows))
    except torch.OutOfMemoryError:
        raise
    except _FAILURES:
        return _FAILS
    if len(alone) != 1 or len(beside) != len(rows) or alone.shape[1:] != beside.shape[1:]:
        return _FAILS
    dtype = precision_of(network.forward_func, beside, *inputs)
    found, expected = alone.to(dtype), beside[-1:].to(dtype)
    return _OTHER if Rounding().difference([found], [expected]) else _SAME


def _answers(network: Network, inputs: tuple[Tensor, ...], samples: Tensor) -> Tensor:
    """The output for some samples, whose inputs the network may change."""
    given = tuple(tensor[samples] for tensor in inputs)
    with torch.no_grad():
        output = _captum.run_forward(network.forward_func, given, network.arguments(samples))
    return with_rows(output, len(samples))
