"""What several maps agree on."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["effect_weights", "geometric_mean"]


def effect_weights(effects: Tensor, maps: Tensor, exponent: float = 4.0) -> Tensor:
    """Shares of powers of effects: how many times larger one is counts, not how large all are.

    Args:
        effects (Tensor): N x M. Those below zero count as zero.
        maps (Tensor): N x M x spatial, what they are effects of.
        exponent (float, optional): To which power they are taken. Default: 4.0.

    Returns:
        Tensor: N x M, each row with a sum of one. Where no effect is above zero, all maps that show
        something weigh the same.

    Examples::

        >>> maps = torch.ones(3, 2, 4)
        >>> effect_weights(torch.tensor([[0.1, 0.2], [-0.1, 0.3], [-0.1, -0.2]]), maps)
        tensor([[0.0588, 0.9412],
                [0.0000, 1.0000],
                [0.5000, 0.5000]])
    """
    shows = maps.flatten(2).any(2)
    shows = shows | ~shows.any(1, keepdim=True)
    positive = effects.relu()
    positive = torch.where(positive.any(1, keepdim=True), positive, shows.to(positive))
    powers = (positive / positive.amax(1, keepdim=True)) ** exponent
    return powers / powers.sum(1, keepdim=True)


def geometric_mean(maps: Tensor, weights: Tensor, floor: float = 0.02) -> Tensor:
    r"""The weighted geometric mean of maps, :math:`\prod_m (L_m + f)^{w_m} - f`.

    Args:
        maps (Tensor): N x M x spatial, from 0 to 1.
        weights (Tensor): N x M, each row with a sum of one.
        floor (float, optional): f. Where one map is zero, another still ranks. Default: 0.02.

    Returns:
        Tensor: N x 1 x spatial.

    Examples::

        >>> import torch
        >>> maps = torch.tensor([[[0.0, 0.2, 0.8], [1.0, 0.8, 0.8]]])
        >>> geometric_mean(maps, torch.tensor([[0.5, 0.5]]))
        tensor([[[0.1228, 0.4047, 0.8000]]])
    """
    shares = weights.view(*maps.shape[:2], *(1 for _ in maps.shape[2:]))
    logarithms = (shares * (maps + floor).log()).sum(1, keepdim=True)
    return (logarithms.exp() - floor).relu()
