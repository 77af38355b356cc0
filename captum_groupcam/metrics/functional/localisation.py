"""Localisation: does the map rank the pixels of the evidence before all others?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captum_groupcam.metrics.functional._maps import check_maps, warn_if_constant
from captum_groupcam.metrics.functional.pointing_game import pointing_game

__all__ = ["LocalisationResult", "localisation"]


class LocalisationResult(NamedTuple):
    """Values of N samples, each in [0, 1], higher is better.

    Attributes:
        roc_auc (Tensor): Area under the ROC curve of the pixels, N; 0.5 for a constant map.
        pr_auc (Tensor): Area under their precision-recall curve, N; for a constant map the share of
            the image that the evidence covers.
        hit (Tensor): Whether the maximum lies in the evidence, N.
        share (Tensor): Share of the positive part of the map that lies in the evidence, N.
    """

    roc_auc: Tensor
    pr_auc: Tensor
    hit: Tensor
    share: Tensor


def localisation(maps: Tensor, masks: Tensor) -> LocalisationResult:
    r"""How well a map finds evidence whose place is known (Arras et al. 2022, arXiv 2003.07258).

    The map is taken for a score of each pixel, and the mask for its label. The two areas depend on
    the order of the pixels alone, so no strictly increasing change of the map moves them; the share
    rises with every sharpening and should not stand alone. Pixels of equal value enter the curves
    together: the ROC curve is a line there (ties are shared out), and the precision-recall curve is
    summed in steps, :math:`\sum_k (R_k - R_{k-1}) P_k`. Both are scikit-learn's ``roc_auc_score``
    and ``average_precision_score``. Several equal maxima count by the share of them that hits, as
    in :func:`~captum_groupcam.metrics.functional.pointing_game` without tolerance.

    Args:
        maps (Tensor): N x 1 x H x W or N x H x W, larger values more important.
        masks (Tensor): The evidence, N x 1 x H x W or N x H x W, true or nonzero.

    Returns:
        LocalisationResult: Values, one a sample. A map without a positive value has a share of 0.

    Raises:
        TypeError: If the maps or the masks are not a tensor.
        ValueError: If shapes do not fit, a map or mask is not finite, or a mask covers nothing or
            all of its image.

    Warns:
        UserWarning: If a map is constant, which ranks nothing.

    Examples::

        >>> import torch
        >>> maps = torch.tensor([[[0.9, 0.2], [0.4, 0.1]]])
        >>> masks = torch.tensor([[[True, True], [False, False]]])
        >>> localisation(maps, masks)
        LocalisationResult(roc_auc=tensor([0.7500]), pr_auc=tensor([0.8333]), hit=tensor([1.]),
                           share=tensor([0.6875]))
    """
    maps = check_maps(maps, 2)
    evidence = _evidence(masks, maps)
    warn_if_constant(
        maps, "it ranks no pixel before another, so that its areas are those of chance."
    )
    roc_auc, pr_auc = _areas(maps.flatten(1), evidence.flatten(1))
    hit = pointing_game(maps, masks=evidence.squeeze(1), tolerance=0)
    positive = maps.clamp(min=0).double()
    total = positive.sum((1, 2, 3))
    inside = (positive * evidence).sum((1, 2, 3))
    share = torch.where(total > 0, inside / total, 0)
    return LocalisationResult(*(value.to(maps) for value in (roc_auc, pr_auc, hit, share)))


def _evidence(masks: Tensor, maps: Tensor) -> Tensor:
    """Checks masks: N x 1 x H x W, bool."""
    checked = check_maps(masks, 2) != 0
    if checked.shape != maps.shape:
        raise ValueError(
            f"Expected a mask of the size of its map for each of {len(maps)} maps, "
            f"{tuple(maps.shape)}; got {tuple(checked.shape)}."
        )
    covered = checked.flatten(1).float().mean(1)
    useless = (covered == 0) | (covered == 1)
    if useless.any():
        raise ValueError(
            f"The mask covers nothing or the whole image in samples "
            f"{useless.nonzero().flatten().tolist()}: there is nothing to find. Leave them out."
        )
    return checked.to(maps.device)


def _areas(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Areas under the ROC and the precision-recall curve of N x K scores and labels."""
    ordered, order = scores.sort(1, descending=True)
    # Counts are exact in double precision.
    hits = labels.gather(1, order).double().cumsum(1)
    count = torch.arange(1, scores.shape[1] + 1, device=scores.device, dtype=torch.double)
    # The curves have a point behind the last pixel of each value.
    is_point = torch.ones_like(labels)
    is_point[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    hits, misses = (torch.where(is_point, value, 0) for value in (hits, count - hits))
    hits_before, misses_before = (_before(value) for value in (hits, misses))
    n_hits, n_misses = hits[:, -1], misses[:, -1]
    roc = torch.where(is_point, (misses - misses_before) * (hits + hits_before) / 2, 0).sum(1)
    recalled = torch.where(is_point, (hits - hits_before) * hits / count, 0).sum(1)
    return roc / (n_hits * n_misses), recalled / n_hits


def _before(counts: Tensor) -> Tensor:
    """The count at the point before each place; counts never fall, and are 0 where no point is."""
    so_far = counts.cummax(1).values
    return torch.cat([torch.zeros_like(so_far[:, :1]), so_far[:, :-1]], 1)
