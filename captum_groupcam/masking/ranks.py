"""Which pixel comes first: the order that a map gives to the pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_groupcam.masking.checks import check_seed

__all__ = ["pixel_ranks"]


def pixel_ranks(maps: Tensor, seed: int | None = None) -> Tensor:
    """Ranks the pixels of maps, the largest value first.

    Args:
        maps (Tensor): N x M x spatial.
        seed (int, optional): Seed of the permutation of pixels by which equal values are ordered,
            the same for every map and device. Default: None, they stay in their order, rows from
            the top.

    Returns:
        Tensor: Ranks from 0, int32, N x M x spatial.

    Examples::

        >>> import torch
        >>> pixel_ranks(torch.tensor([[[0.1, 0.7, 0.0, 0.7]]]))
        tensor([[[2, 0, 3, 1]]], dtype=torch.int32)
    """
    if seed is not None:
        check_seed(seed)
    flat = maps.flatten(2)
    n = flat.shape[2]
    if seed is None:
        order = flat.argsort(dim=2, descending=True, stable=True)
    else:
        # Drawn on the CPU, so that it is the same on every device.
        permutation = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        permutation = permutation.to(flat.device)
        order = permutation[flat[..., permutation].argsort(dim=2, descending=True, stable=True)]
    places = torch.arange(n, device=flat.device, dtype=torch.int32)
    ranks = torch.empty_like(order, dtype=torch.int32)
    return ranks.scatter_(2, order, places.expand_as(order)).view_as(maps)
