"""The map that explains the scores of masks: regression with a prior, instead of their sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_groupcam.masking.masks import MaskSource

__all__ = ["mask_cells", "posterior", "smoothness"]


def posterior(
    rows: Tensor, scores: Tensor, prior: Tensor, covariance: Tensor, noise: float
) -> Tensor:
    r"""The map :math:`s` whose sums under the masks explain the scores, :math:`y = R s`.

    The mean of a Gaussian process after it has seen the scores (Rasmussen and Williams, *Gaussian
    Processes for Machine Learning*, 2006, eq. 2.23):

    .. math::

        s = \mu + K R^T (R K R^T + \sigma^2 I)^{-1} (y - R \mu)

    With :math:`\mu = 0, K = I` and much noise it is :math:`R^T y` up to a factor: the merge of
    Group-CAM and of RISE.

    Args:
        rows (Tensor): N x Q x P, how much each query shows of each place.
        scores (Tensor): N x Q.
        prior (Tensor): N x P, the map that is expected, up to a positive factor that the scores
            decide on.
        covariance (Tensor): P x P, how places go together; its scale does not matter.
        noise (float): Variance of what is not a sum, as a share of the scores' variance that is
            expected without.

    Returns:
        Tensor: N x P.
    """
    expected = (rows @ prior.unsqueeze(-1)).squeeze(-1)
    size = expected.square().sum(1, keepdim=True)
    factor = (expected * scores).sum(1, keepdim=True).relu() / torch.where(size > 0, size, 1)
    spread = rows @ covariance
    gram = spread @ rows.mT
    variance = gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=torch.finfo(gram.dtype).tiny)
    gram = gram + noise * variance.view(-1, 1, 1) * torch.eye(len(gram[0])).to(gram)
    surprise = (scores - factor * expected).unsqueeze(-1)
    correction: Tensor = spread.mT @ torch.linalg.solve(gram, surprise)
    return factor * prior + correction.squeeze(-1)


def smoothness(grid: Sequence[int], length: float, like: Tensor) -> Tensor:
    """Covariance of places on a grid: neighbours have like values.

    Args:
        grid (sequence of int): Height and width, P places.
        length (float): Distance, as a share of the sides, at which they are half-strangers (the
            squared exponential's length).
        like (Tensor): Gives device and dtype.
    """
    axes = [(torch.arange(n).to(like) + 0.5) / n for n in grid]
    places = torch.cartesian_prod(*axes)
    return torch.exp(-0.5 * (torch.cdist(places, places) / length) ** 2)


def mask_cells(masks: MaskSource, size: Sequence[int], grid: Sequence[int]) -> Tensor:
    """How much masks show of each cell of a grid, N x G x P; those that are not informative none.

    Args:
        masks (MaskSource): G masks for each of N samples.
        size (sequence of int): Height and width at which they are rendered.
        grid (sequence of int): Height and width of the grid, P cells.
    """
    samples, which = masks.informative.nonzero().unbind(1)
    rendered = masks.render(samples, which, size)
    cells = rendered.new_zeros(*masks.informative.shape, grid[0] * grid[1])
    cells[samples, which] = F.adaptive_avg_pool2d(rendered, (grid[0], grid[1])).flatten(1)
    return cells
