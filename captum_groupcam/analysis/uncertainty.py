r"""How sure is a map: what it would be with other groups of the same kind.

GroupCAM's map is a sum over groups, :math:`L = \mathrm{ReLU}(\sum_l \alpha_l M'_l)`. The bootstrap
(Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993) takes the groups as a sample of those
that the layer could have been split into: it draws as many with replacement, merges them again, and
looks how far the map moves. The network is not asked again. A map that hangs on one group moves a
lot; one on which many groups agree does not. What else could be different, the weights of the
network or the image, is not part of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.masking.checks import check_count, check_seed
from captum_groupcam.masking.masks import MaskSource
from captum_groupcam.metrics.bootstrap import resampling_counts
from captum_groupcam.networks.tensors import check_tensor

__all__ = [
    "ScoredMasks",
    "maximum_probability",
    "scored_masks",
    "standard_error",
]

_ELEMENTS = 2**24  # of resampled maps and rendered masks held at a time: 128 MiB


@dataclass(frozen=True)
class ScoredMasks:
    r"""The masks of a call of GroupCAM, and what each was worth.

    Attributes:
        masks (MaskSource): G masks for each of N samples, kept at the layer's resolution.
        scores (Tensor): N x G, the scores :math:`\alpha_l`; zero for a flat mask.
        size (torch.Size): Spatial size of the input.
    """

    masks: MaskSource
    scores: Tensor
    size: torch.Size

    def of_sample(self, sample: int) -> tuple[Tensor, Tensor]:
        """Renders what the network saw of one sample.

        Args:
            sample (int): Index of the sample.

        Returns:
            tuple of Tensor: Masks, G x spatial in [0, 1], and their scores, G.

        Raises:
            TypeError: If the index is not a whole number.
            ValueError: If there is no such sample.
        """
        check_count("sample", sample, 0)
        if sample >= len(self.scores):
            raise ValueError(f"sample must be below {len(self.scores)}, got {sample}.")
        groups = torch.arange(self.scores.shape[1], device=self.scores.device)
        rendered = self.masks.render(torch.full_like(groups, sample), groups, self.size)
        return rendered.squeeze(1), self.scores[sample]


def scored_masks(
    group_cam: GroupCAM, inputs: Tensor, target: _captum.TargetType = None, **options: Any
) -> ScoredMasks:
    """Explains inputs by GroupCAM, and returns the masks and their scores instead of the map.

    Args:
        group_cam (GroupCAM): The method, with its network and layer.
        inputs (Tensor): N x C x spatial.
        target (int, tuple, Tensor, list or None, optional): As in Captum. Default: None.
        **options (Any, optional): What else :meth:`captum_groupcam.GroupCAM.attribute` takes.

    Returns:
        ScoredMasks: The masks and scores of which ``attribute`` merges its map.

    Raises:
        TypeError: If inputs are several, or as ``attribute``.
        ValueError: As ``attribute``.

    Examples::

        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> group_cam = GroupCAM(nn.Sequential(features, head).eval(), features)
        >>> scored = scored_masks(group_cam, torch.rand(2, 3, 16, 16), target=3, n_groups=4)
        >>> masks, scores = scored.of_sample(0)
        >>> masks.shape, scores.shape
        (torch.Size([4, 16, 16]), torch.Size([4]))
    """
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a tensor, got {type(inputs).__name__}.")
    options["return_group_masks"] = True
    _, scores, masks = group_cam.attribute(inputs, target, **options)
    return ScoredMasks(masks, scores, inputs.shape[2:])


def standard_error(
    masks: MaskSource,
    scores: Tensor,
    size: Sequence[int],
    *,
    n_resamples: int = 1000,
    relu_attributions: bool = True,
    normalized: bool = True,
    seed: int = 0,
) -> Tensor:
    """The bootstrap's standard error of each pixel of a map.

    Args:
        masks (MaskSource): G masks for each of N samples.
        scores (Tensor): N x G, the scores by which they are merged.
        size (sequence of int): Spatial size of the map.
        n_resamples (int, optional): How often the groups are drawn. The error of a standard error
            is about one in ``sqrt(2 * n_resamples)`` of it, 2 % of it with the default.
            Default: 1000.
        relu_attributions (bool, optional): Whether the map keeps only positive values, as in the
            paper. Default: True.
        normalized (bool, optional): As ``merge_normalized`` of GroupCAM. Default: True.
        seed (int, optional): Seed of the draws; all samples see the same. Default: 0.

    Returns:
        Tensor: N x 1 x size, in the unit of the map. Zero everywhere for a single group.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If scores are not finite, there is no group, or fewer than two resamples; or if
            the size or the seed is out of range.

    Examples::

        >>> from captum_groupcam.masking.masks import LayerMasks
        >>> masks = LayerMasks(torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]))
        >>> scores = torch.tensor([[0.5, 0.5, 0.1]])
        >>> standard_error(masks, scores, size=(2,)).round(decimals=2)
        tensor([[[0.4100, 0.0800]]])
    """
    _check_scores(masks, scores, n_resamples, seed)
    _check_size(masks, size)
    merged = scores.new_zeros(len(scores), math.prod(size))
    total, squares = torch.zeros_like(merged), torch.zeros_like(merged)
    once = scores.new_ones(1, scores.shape[1])
    options: Any = {"relu": relu_attributions, "normalized": normalized}
    for sample, (maps,) in _merge(masks, scores, size, once, **options):
        merged[sample] = maps
    counts = resampling_counts(scores.shape[1], n_resamples, seed).to(scores)
    for sample, maps in _merge(masks, scores, size, counts, **options):
        # Relative to the map itself, so that squares of large numbers do not cancel.
        moved = maps - merged[sample]
        total[sample] += moved.sum(0)
        squares[sample] += moved.square().sum(0)
    variance = (squares - total.square() / n_resamples).clamp(min=0) / (n_resamples - 1)
    return variance.sqrt().view(len(scores), 1, *size)


def maximum_probability(
    masks: MaskSource,
    scores: Tensor,
    regions: Tensor,
    *,
    n_resamples: int = 1000,
    relu_attributions: bool = True,
    normalized: bool = True,
    seed: int = 0,
) -> Tensor:
    """How often the maximum of a map lies in a region when its groups are drawn again.

    Several equal maxima count by the share of them that lies in the region, as in
    :func:`~captum_groupcam.metrics.functional.pointing_game`. So a resample without any positive
    value counts by the share of the image that the region covers.

    Args:
        masks (MaskSource): G masks for each of N samples.
        scores (Tensor): N x G, the scores by which they are merged.
        regions (Tensor): N x 1 x spatial booleans at the map's resolution; of boxes, by
            :func:`~captum_groupcam.metrics.functional.boxes_to_masks`.
        n_resamples (int, optional): How often the groups are drawn. Default: 1000.
        relu_attributions (bool, optional): As for :func:`standard_error`. Default: True.
        normalized (bool, optional): As for :func:`standard_error`. Default: True.
        seed (int, optional): Seed of the draws; all samples see the same. Default: 0.

    Returns:
        Tensor: N probabilities.

    Raises:
        TypeError: As :func:`standard_error`.
        ValueError: If regions are not booleans of shape N x 1 x spatial, or as
            :func:`standard_error`.

    Examples::

        >>> from captum_groupcam.masking.masks import LayerMasks
        >>> masks = LayerMasks(torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]))
        >>> scores = torch.tensor([[0.5, 0.5, 0.1]])
        >>> left = torch.tensor([[[True, False]]])
        >>> maximum_probability(masks, scores, left).round(decimals=2)
        tensor([0.9600])
    """
    _check_scores(masks, scores, n_resamples, seed)
    check_tensor("regions", regions)
    expected = (len(scores), 1)
    if regions.dtype is not torch.bool or regions.dim() < 3 or regions.shape[:2] != expected:
        raise ValueError(
            f"Expected regions of shape {expected} x spatial and type torch.bool, got "
            f"{tuple(regions.shape)}, {regions.dtype}."
        )
    inside = regions.to(scores.device).flatten(1)
    counts = resampling_counts(scores.shape[1], n_resamples, seed).to(scores)
    hits = scores.new_zeros(len(scores))
    for sample, maps in _merge(
        masks, scores, regions.shape[2:], counts, relu=relu_attributions, normalized=normalized
    ):
        highest = maps == maps.amax(1, keepdim=True)
        hits[sample] += ((highest & inside[sample]).sum(1) / highest.sum(1)).sum()
    return hits / n_resamples


def _check_scores(masks: MaskSource, scores: Tensor, n_resamples: int, seed: int) -> None:
    check_count("n_resamples", n_resamples, 2)
    check_seed(seed, 0)
    if not isinstance(getattr(masks, "informative", None), Tensor):
        raise TypeError(
            "masks must be a source of masks, as GroupCAM returns with return_group_masks=True; "
            f"got {type(masks).__name__}."
        )
    check_tensor("scores", scores)
    expected = tuple(masks.informative.shape)
    if tuple(scores.shape) != expected or not scores.is_floating_point():
        raise ValueError(
            f"Expected floating-point scores N x G, {expected}, one for each mask, got "
            f"{tuple(scores.shape)}, {scores.dtype}."
        )
    if not scores.isfinite().all():
        raise ValueError("Expected finite scores, got NaN or infinite values.")


def _check_size(masks: MaskSource, size: Sequence[int]) -> None:
    for side in size:
        check_count("size", side)
    maps = getattr(masks, "maps", None)
    if isinstance(maps, Tensor) and len(size) != maps.dim() - 2:
        raise ValueError(f"size must have {maps.dim() - 2} numbers, got {tuple(size)}.")


def _merge(
    masks: MaskSource,
    scores: Tensor,
    size: Sequence[int],
    counts: Tensor,
    *,
    relu: bool,
    normalized: bool,
) -> Iterator[tuple[int, Tensor]]:
    """Merges the groups of each sample in B draws, a few at a time: its index and T x pixels."""
    # Half of the memory is for maps, half for masks.
    at_once = max(1, _ELEMENTS // (2 * math.prod(size)))
    for sample, row in enumerate(scores):
        scored = row.nonzero().flatten()  # the others need not be rendered
        for drawn in (counts[:, scored] * row[scored]).split(at_once):
            maps = row.new_zeros(len(drawn), math.prod(size))
            for groups, weights in zip(
                scored.split(at_once), drawn.split(at_once, dim=1), strict=True
            ):
                samples = torch.full_like(groups, sample)
                rendered = masks.render(samples, groups, size, normalized=normalized)
                with torch.autocast(row.device.type, enabled=False):
                    maps += weights @ rendered.flatten(1).to(weights)
            yield sample, maps.relu() if relu else maps
