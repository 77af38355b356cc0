"""Several maps of one input, merged into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from captum_groupcam.masking.checks import check_choice
from captum_groupcam.masking.masks import normalize, upsample

__all__ = ["Merge", "merge_maps"]

Merge: TypeAlias = Literal["mean", "maximum", "product"]


def merge_maps(maps: Sequence[Tensor], size: Sequence[int], merge: Merge = "mean") -> Tensor:
    """Merges maps of one input, each on a scale and at a resolution of its own.

    Of each map the positive part is brought to [0, 1] by its minimum and maximum, then to the size.

    Args:
        maps (sequence of Tensor): N x 1 x spatial each.
        size (sequence of int): Spatial size of the result.
        merge (str, optional): "mean" (pytorch-grad-cam), "maximum" (torchcam's ``fuse_cams``) or
            "product" (RefineCAM, arXiv 2605.14641). Default: "mean".

    Returns:
        Tensor: N x 1 x size, in [0, 1].

    Raises:
        ValueError: If there are no maps, or none of the three is meant.

    Examples::

        >>> first, second = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[1.0, 3.0, 2.0, 3.0]]])
        >>> merge_maps([first, second], (4,), "product")
        tensor([[[0.0000, 0.2500, 0.3750, 1.0000]]])
    """
    check_choice("merge", merge, "mean", "maximum", "product")
    if not maps:
        raise ValueError("Expected at least one map to merge, got none.")
    merged = upsample(normalize(maps[0].relu()), size)
    for one in maps[1:]:
        other = upsample(normalize(one.relu()), size)
        if merge == "mean":
            merged = merged + other
        else:
            merged = merged * other if merge == "product" else torch.maximum(merged, other)
    return merged / len(maps) if merge == "mean" else merged
