"""Groups as runs of channels in some order: other orders and other cuts than the paper's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .steps import lookup

__all__ = ["ORDERS", "ordered", "run_groups"]


def by_channel(contributions: Tensor) -> Tensor:
    """As the network has them, like the paper."""
    samples, channels = contributions.shape[:2]
    return torch.arange(channels, device=contributions.device).expand(samples, channels)


def by_place(contributions: Tensor) -> Tensor:
    """By where a channel peaks, along a curve that keeps neighbours together (Morton's)."""
    peaks = contributions.abs().flatten(2).argmax(-1)
    rows, columns = peaks // contributions.shape[-1], peaks % contributions.shape[-1]
    return _interleaved_bits(rows, columns)


def by_weight(contributions: Tensor) -> Tensor:
    """By what a channel adds to the class in all, the most first."""
    return -contributions.flatten(2).sum(-1)


#: What channels are sorted by, from contributions w_k A_k (N x K x h x w): N x K keys.
ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "channel": by_channel,
    "place": by_place,
    "weight": by_weight,
}


def ordered(contributions: Tensor, order: str) -> Tensor:
    """The channels in an order, a permutation for each sample: N x K."""
    return lookup(ORDERS, order, "order")(contributions).argsort(dim=1, stable=True)


def run_groups(
    contributions: Tensor, n_groups: int, *, order: str = "channel", balanced: bool = False
) -> Tensor:
    """Cuts the ordered channels into runs.

    Args:
        contributions (Tensor): N x K x h x w, w_k A_k.
        n_groups (int): Number of groups, capped at K.
        order (str): A name in :data:`ORDERS`. Default: "channel".
        balanced (bool): Whether groups have the same share of the positive contributions, rather
            than the same number of channels. Default: False.

    Returns:
        Tensor: N x K, for each channel the index of its group.

    Examples::

        >>> run_groups(torch.tensor([[[[3.0]], [[1.0]], [[1.0]], [[1.0]]]]), 2, balanced=True)
        tensor([[0, 1, 1, 1]])
    """
    samples, channels = contributions.shape[:2]
    n_groups = min(n_groups, channels)
    sequence = ordered(contributions, order)
    if balanced:
        mass = contributions.relu().flatten(2).sum(-1).gather(1, sequence).double()
        total = mass.sum(1, keepdim=True)
        # The middle of a channel's share decides, so that rounding of the total cannot.
        middles = (mass.cumsum(1) - mass / 2) / torch.where(total > 0, total, 1)
        runs = (middles * n_groups).long().clamp(max=n_groups - 1)
    else:
        sizes = [len(run) for run in torch.arange(channels).tensor_split(n_groups)]
        counts = torch.tensor(sizes, device=sequence.device)
        numbers = torch.arange(n_groups, device=sequence.device)
        runs = numbers.repeat_interleave(counts).expand(samples, -1)
    return torch.empty_like(sequence).scatter_(1, sequence, runs)


def _interleaved_bits(rows: Tensor, columns: Tensor) -> Tensor:
    code = torch.zeros_like(rows)
    for bit in range(10):
        code |= ((columns >> bit) & 1) << (2 * bit) | ((rows >> bit) & 1) << (2 * bit + 1)
    return code
