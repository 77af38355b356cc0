"""The algorithm of Group-CAM (arXiv 2103.13859, section 3)."""

from __future__ import annotations

from typing import Literal

import torch

from captum_groupcam.attr._shared import shared_arguments
from captum_groupcam.attr.functional.results import GroupCAMResult
from captum_groupcam.attr.maps import mean_gradients
from captum_groupcam.masking.call import ROUNDING_OF_SCORES, Call, without_rounding
from captum_groupcam.masking.checks import check_choice
from captum_groupcam.masking.groups import Grouping, find_grouping, group_maps, split_channels
from captum_groupcam.masking.masks import LayerMasks, check_percentile, denoise
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["group_cam"]


@shared_arguments
def group_cam(
    call: Call,
    layer: TargetLayer,
    *,
    n_groups: int = 32,
    grouping: str | Grouping = "contiguous",
    gradient_free: bool = False,
    denoise_percentile: float | None = 70.0,
    denoise_at: Literal["layer", "input"] = "layer",
    relu_scores: bool = False,
    merge_normalized: bool = True,
    relu_attributions: bool = True,
    show_progress: bool = False,
) -> GroupCAMResult:
    r"""Scores the input seen through groups of a layer's channels, merges these by their scores.

    Source: Zhang, Rao and Yang, arXiv 2103.13859, section 3.

    Args:
        call (Call): Inputs I, baselines B, and the network that gives the scores F.
        layer (TargetLayer): The layer whose channels :math:`A_k` are grouped.
        n_groups (int, optional): Number of groups G, hence of forward passes; capped at the
            number of channels. Default: 32.
        grouping (str or Callable, optional): How channels are split: "contiguous" (paper),
            "k_means" or "agglomerative" (by where they are active), or a function, see
            :mod:`~captum_groupcam.masking.groups`. Default: "contiguous".
        gradient_free (bool, optional): Whether all channels weigh the same, so that the
            network needs no gradients. Default: False.
        denoise_percentile (float, optional): :math:`\theta`: positions of a group's map below
            this percentile are dropped; in [0, 100), None keeps all. Default: 70.0.
        denoise_at (str, optional): "layer" denoises at the resolution of the layer (paper),
            "input" after upsampling, which gives sharper masks. Default: "layer".
        relu_scores (bool, optional): Whether groups that lower the score are left out of the
            sum. Default: False.
        merge_normalized (bool, optional): Whether the merged masks are those that the network
            saw, normalised to [0, 1] (paper), or the maps before normalisation. Default: True.
        relu_attributions (bool, optional): {relu_attributions}
        show_progress (bool, optional): {show_progress}

    Returns:
        GroupCAMResult: Maps (N x 1 x spatial), scores (N x G) and masks.

    Examples::

        >>> from captum_groupcam.masking.call import prepare
        >>> features = torch.nn.Conv2d(3, 8, 3)
        >>> network = torch.nn.Sequential(features, torch.nn.Flatten(), torch.nn.Linear(288, 5))
        >>> call = prepare(network, torch.rand(2, 3, 8, 8), 3, None)
        >>> group_cam(call, TargetLayer(features), n_groups=4).scores.shape
        torch.Size([2, 4])
    """
    find_grouping(n_groups, grouping)
    check_percentile(denoise_percentile)
    check_choice("denoise_at", denoise_at, "layer", "input")

    # 1. Weights: w_k, the mean gradient of the class's output over a channel's positions.
    if gradient_free:
        activations = call.activations(layer, checks_order=True)
        weights = activations.new_ones(activations.shape[:2])
    else:
        gradients, activations = call.gradients_and_activations(layer)
        weights = mean_gradients(gradients)

    # 2. Split: M_l = ReLU(sum of w_k A_k over the group).
    groups = split_channels(activations, n_groups, grouping)
    maps = group_maps(activations, weights, groups, n_groups)

    # 3. Denoise: keep what exceeds the percentile of its map.
    if denoise_percentile is not None and denoise_at == "layer":
        maps = denoise(maps, denoise_percentile)

    # 4. Upsample and normalise to M'_l in [0, 1], when they are rendered.
    masks = LayerMasks(maps, denoise_percentile if denoise_at == "input" else None)

    # 5. Transform and 6. score: alpha_l = F_c(I * M'_l + B * (1 - M'_l)) - F_c(B).
    scores, queried = call.score_masks(masks, "Group-CAM", show_progress=show_progress)
    baseline = call.score_baselines().unsqueeze(1)
    alphas = torch.where(queried, scores - baseline, 0)
    alphas = without_rounding(alphas, baseline, ROUNDING_OF_SCORES)
    unmoved = ~alphas.any(1)
    if relu_scores:
        alphas = alphas.relu()

    # 7. Merge: ReLU(sum of alpha_l M'_l).
    merged = call.merge(masks, alphas, normalized=merge_normalized)
    if relu_attributions:
        merged = tuple(one.relu() for one in merged)
    return GroupCAMResult(merged, queried, alphas, masks, activations, weights, unmoved)
