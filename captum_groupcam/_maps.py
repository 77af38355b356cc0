"""What class activation maps share: a weighted sum of a layer's channels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["weighted_sum"]


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
