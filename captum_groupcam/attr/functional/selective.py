"""The algorithm of Selective Group-CAM."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from captum_groupcam.attr._shared import shared_arguments
from captum_groupcam.attr.functional.group_cam import group_cam
from captum_groupcam.attr.functional.results import SelectiveResult
from captum_groupcam.attr.maps import divide_by_maximum, guided_filter, weighted_sum
from captum_groupcam.masking.baselines import gaussian_blur
from captum_groupcam.masking.call import Call
from captum_groupcam.masking.checks import check_between, check_count
from captum_groupcam.masking.masks import check_percentile, upsample
from captum_groupcam.masking.ranks import RankMasks, check_shares
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["selective_group_cam"]

_PRIOR = 0.1  #: of Grad-CAM, to rank what no mask shows


@shared_arguments
def selective_group_cam(
    call: Call,
    layer: TargetLayer,
    *,
    n_groups: int = 13,
    denoise_percentile: float | None = 70.0,
    edge_radius: float = 8 / 224,
    gradient_sigma: float = 6 / 224,
    gradient_power: float = 0.8,
    shares: Sequence[float] = (0.15, 0.45),
    show_progress: bool = False,
) -> SelectiveResult:
    r"""The steps of :class:`~captum_groupcam.SelectiveGroupCAM`.

    Args:
        call (Call): The input, its baseline, and the network that gives the scores F.
        layer (TargetLayer): The layer whose activations are grouped.
        n_groups (int, optional): Groups of Group-CAM. Default: 13.
        denoise_percentile (float, optional): :math:`\theta` of Group-CAM, at the input's
            resolution; None keeps all. Default: 70.0.
        edge_radius (float, optional): Radius of the guided filter, as a share of the input's
            shorter side; 0 leaves it out. Default: 8 / 224.
        gradient_sigma (float, optional): Standard deviation of the blur of the gradient's
            magnitudes, as a share of the input's shorter side. Default: 6 / 224.
        gradient_power (float, optional): To which power they are taken. Default: 0.8.
        shares (sequence of float, optional): S, in (0, 1). Default: (0.15, 0.45).
        show_progress (bool, optional): {show_progress}

    Returns:
        SelectiveResult: Maps, N x 1 x spatial, and effects, N x 4.

    Raises:
        TypeError: If an option has a wrong type.
        ValueError: If an option is out of range, or several inputs have spatial dimensions.

    Examples::

        >>> from captum_groupcam.masking.call import prepare
        >>> features = torch.nn.Conv2d(3, 8, 3)
        >>> network = torch.nn.Sequential(features, torch.nn.Flatten(), torch.nn.Linear(288, 5))
        >>> call = prepare(network, torch.rand(2, 3, 8, 8), 3, None)
        >>> selective_group_cam(call, TargetLayer(features)).effects.shape
        torch.Size([2, 4])
    """
    check_count("n_groups", n_groups)
    check_percentile(denoise_percentile)
    of_side = " It is a share of the input's shorter side."
    check_between("edge_radius", edge_radius, 0, 1, ends="[)", hint=of_side)
    check_between("gradient_sigma", gradient_sigma, 0, 1, ends="(]", hint=of_side)
    check_between("gradient_power", gradient_power, 0, float("inf"), ends="()")
    check_shares(shares)
    place = call.only_spatial()
    image = call.inputs[place]
    side = min(image.shape[2:])
    at_input = call.network.input_gradients(call.inputs, place)

    # 1. Group-CAM, and Grad-CAM, of which a share is added.
    merged = group_cam(
        call,
        layer,
        n_groups=n_groups,
        denoise_percentile=denoise_percentile,
        denoise_at="input",
        show_progress=show_progress,
    )
    grad_cam = weighted_sum(merged.activations, merged.weights).relu()
    grad_cam = divide_by_maximum(upsample(grad_cam, image.shape[2:]))
    of_groups = divide_by_maximum(merged.maps[place]) + _PRIOR * grad_cam

    # 2. Edges.
    maps = guided_filter(torch.cat([grad_cam, of_groups], 1), image, round(edge_radius * side))

    # 3. Gradient of the input.
    sigma = gradient_sigma * side
    magnitudes = gaussian_blur(at_input.abs().sum(1, keepdim=True), 2 * round(2 * sigma) + 1, sigma)
    sharpened = maps * divide_by_maximum(magnitudes) ** gradient_power
    maps = torch.cat([sharpened, maps], 1)

    # 4. Effects: what is scored where only a map's first positions are seen, less without them.
    masks = RankMasks.of(maps, shares)
    scores, _ = call.score_masks(masks, "Selection", show_progress=show_progress)
    shown, hidden = scores.view(*maps.shape[:2], len(shares), 2).unbind(-1)
    effects = (shown - hidden).mean(-1)

    # 5. The map with the largest effect.
    best = effects.argmax(1).view(-1, *(1 for _ in maps.shape[1:]))
    asked = merged.queried.any(1).view_as(best)
    selected = torch.where(asked, maps.take_along_dim(best, 1), 0)
    return SelectiveResult(call.for_each_input(selected), merged.queried, effects)
