"""What class activation maps share: the weighted sum of a layer's channels, and their scale."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["peaked", "weighted_sum"]


def weighted_sum(activations: Tensor, weights: Tensor) -> Tensor:
    r"""Sums the channels of a layer by their weights, :math:`\sum_k w_k A_k`.

    Args:
        activations (Tensor): N x K x spatial, the activations A_k.
        weights (Tensor): N x K, the weights w_k.

    Returns:
        Tensor: N x 1 x spatial.

    Examples::

        >>> import torch
        >>> weighted_sum(torch.tensor([[[1.0, 2.0], [3.0, 1.0]]]), torch.tensor([[1.0, -1.0]]))
        tensor([[[-2.,  1.]]])
    """
    with torch.autocast(activations.device.type, enabled=False):
        maps = weights.unsqueeze(1) @ activations.flatten(2)
    return maps.view(len(maps), 1, *activations.shape[2:])


def peaked(maps: Tensor) -> Tensor:
    """Divides the maps of each sample by their maximum, if that is positive.

    Args:
        maps (Tensor): N x M x spatial.

    Returns:
        Tensor: Maps of the same shape.

    Examples::

        >>> import torch
        >>> peaked(torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]))
        tensor([[[0.5000, 1.0000]],
        <BLANKLINE>
                [[0.0000, 0.0000]]])
    """
    top = maps.flatten(1).amax(1).view(-1, *(1 for _ in maps.shape[1:]))
    return maps / torch.where(top > 0, top, 1)
