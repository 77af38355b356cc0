"""Which pixel comes first: the order that a map gives to the pixels, and masks by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from captum_groupcam.masking.checks import check_between, check_seed

__all__ = ["RankMasks", "check_shares", "pixel_ranks"]


def pixel_ranks(maps: Tensor, seed: int | Sequence[int] | None = None) -> Tensor:
    """Ranks the pixels of maps, the largest value first.

    Args:
        maps (Tensor): N x M x spatial.
        seed (int or sequence of int, optional): Seed of the permutation of pixels by which equal
            values are ordered, the same for every map and device; or one for each of N samples.
            Default: None, they stay in their order, rows from the top.

    Returns:
        Tensor: Ranks from 0, int32, N x M x spatial.

    Raises:
        TypeError: If a seed is not a whole number.
        ValueError: If there are not as many seeds as samples.

    Examples::

        >>> import torch
        >>> pixel_ranks(torch.tensor([[[0.1, 0.7, 0.0, 0.7]]]))
        tensor([[[2, 0, 3, 1]]], dtype=torch.int32)
    """
    if isinstance(seed, (list, tuple)):
        if len(seed) != len(maps):
            raise ValueError(f"Expected a seed for each of {len(maps)} samples, got {len(seed)}.")
        each = zip(maps.unsqueeze(1), seed, strict=True)
        return torch.cat([pixel_ranks(sample, one) for sample, one in each])
    if seed is not None:
        check_seed(seed)
    flat = maps.flatten(2)
    n = flat.shape[2]
    if seed is None:
        order = flat.argsort(dim=2, descending=True, stable=True)
    else:
        # Drawn on the CPU, so that it is the same on every device.
        generator = torch.Generator().manual_seed(cast(int, seed))
        permutation = torch.randperm(n, generator=generator)
        permutation = permutation.to(flat.device)
        order = permutation[flat[..., permutation].argsort(dim=2, descending=True, stable=True)]
    places = torch.arange(n, device=flat.device, dtype=torch.int32)
    ranks = torch.empty_like(order, dtype=torch.int32)
    return ranks.scatter_(2, order, places.expand_as(order)).view_as(maps)


@dataclass(frozen=True)
class RankMasks:
    """Masks that show the positions that a map ranks first, each followed by its complement.

    Args:
        ranks (Tensor): N x M x spatial, from 0.
        counts (Tensor): Numbers of positions, of shape S. Mask 2 (m S + s) shows the first of map m
            that share s allows, the next one all others.

    Examples::

        >>> import torch
        >>> masks = RankMasks.of(torch.tensor([[[0.1, 0.7, 0.0, 0.9]]]), shares=(0.5,))
        >>> masks.render(torch.tensor([0, 0]), torch.tensor([0, 1]), size=(4,))
        tensor([[[0., 1., 0., 1.]],
        <BLANKLINE>
                [[1., 0., 1., 0.]]])
    """

    ranks: Tensor
    counts: Tensor

    @classmethod
    def of(cls, maps: Tensor, shares: Sequence[float]) -> RankMasks:
        """Ranks maps, equal values in their order.

        Args:
            maps (Tensor): N x M x spatial.
            shares (sequence of float): S shares of the positions, in (0, 1).

        Returns:
            RankMasks: 2 M S masks for each of N samples.
        """
        counts = [max(round(share * maps[0, 0].numel()), 1) for share in shares]
        return cls(pixel_ranks(maps), torch.tensor(counts, device=maps.device))

    @property
    def informative(self) -> Tensor:
        """N x 2 M S booleans."""
        samples, maps = self.ranks.shape[:2]
        return self.ranks.new_ones(samples, 2 * maps * len(self.counts), dtype=torch.bool)

    def render(
        self,
        samples: Tensor,
        masks: Tensor,
        size: Sequence[int],
        *,
        normalized: bool = True,  # noqa: ARG002 (they are zero or one as they are)
    ) -> Tensor:
        """Renders Q masks: see :class:`~captum_groupcam.masking.masks.MaskSource`."""
        which, hides = masks // 2, masks % 2 == 1
        ranks = self.ranks[samples, which // len(self.counts)]
        counts = self.counts[which % len(self.counts)]
        ones = [1 for _ in size]
        shown = (ranks < counts.view(-1, *ones)) != hides.view(-1, *ones)
        return shown.unsqueeze(1).float()


def check_shares(shares: Sequence[float]) -> None:
    """Checks shares of the positions, before the network is asked.

    Args:
        shares (sequence of float): At least one, each in (0, 1).

    Raises:
        TypeError: If they are no list or tuple of numbers.
        ValueError: If there are none, or one is outside.

    Examples::

        >>> check_shares((0.5, 1.0))
        Traceback (most recent call last):
        ValueError: each of shares must be in (0, 1), got 1.0.
    """
    if not isinstance(shares, (list, tuple)):
        raise TypeError(f"shares must be a tuple of numbers, got {shares!r}.")
    if not shares:
        raise ValueError("shares needs at least one number.")
    for share in shares:
        check_between("each of shares", share, 0, 1, ends="()")
