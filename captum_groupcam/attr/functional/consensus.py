"""The algorithm of Consensus Group-CAM."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from captum_groupcam.attr._shared import shared_arguments
from captum_groupcam.attr.functional.agreement import effect_weights, geometric_mean
from captum_groupcam.attr.functional.finer_cam import finer_cam
from captum_groupcam.attr.functional.group_cam import group_cam
from captum_groupcam.attr.functional.results import ConsensusResult
from captum_groupcam.attr.maps import divide_by_maximum, guided_filter, sharpened
from captum_groupcam.masking.call import ROUNDING_OF_SCORES, Call, without_rounding
from captum_groupcam.masking.checks import check_between, check_count
from captum_groupcam.masking.masks import check_percentile
from captum_groupcam.masking.ranks import RankMasks, check_shares
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["consensus_group_cam"]


@shared_arguments
def consensus_group_cam(
    call: Call,
    layer: TargetLayer,
    *,
    n_groups: int = 19,
    denoise_percentile: float | None = 70.0,
    flip: bool = True,
    edge_radius: float = 8 / 224,
    gradient_sigma: float = 6 / 224,
    gradient_power: float = 0.2,
    shares: Sequence[float] = (0.15, 0.45),
    show_progress: bool = False,
) -> ConsensusResult:
    r"""The steps of :class:`~captum_groupcam.ConsensusGroupCAM`.

    Args:
        call (Call): The input, its baseline, and the network that gives the scores F.
        layer (TargetLayer): The layer whose activations are grouped.
        n_groups (int, optional): Groups of Group-CAM. Default: 19.
        denoise_percentile (float, optional): :math:`\theta` of Group-CAM, at the input's
            resolution; None keeps all. Default: 70.0.
        flip (bool, optional): Whether step 1 also takes the mirrored input, where nothing names a
            place. Default: True.
        edge_radius (float, optional): Radius of the guided filter, as a share of the input's
            shorter side; 0 leaves it out. Default: 8 / 224.
        gradient_sigma (float, optional): Standard deviation of the blur of the gradient's
            magnitudes, as a share of the input's shorter side. Default: 6 / 224.
        gradient_power (float, optional): To which power they are taken. Default: 0.2.
        shares (sequence of float, optional): S, in (0, 1). Default: (0.15, 0.45).
        show_progress (bool, optional): {show_progress}

    Returns:
        ConsensusResult: Maps, N x 1 x spatial, and effects, N x 2.

    Raises:
        TypeError: If an option has a wrong type.
        ValueError: If an option is out of range, or several inputs have spatial dimensions.

    Examples::

        >>> from captum_groupcam.masking.call import prepare
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten())
        >>> call = prepare(network, torch.rand(2, 3, 8, 8), 3, None)
        >>> consensus_group_cam(call, TargetLayer(network[0])).effects.shape
        torch.Size([2, 2])
    """
    check_count("n_groups", n_groups)
    check_percentile(denoise_percentile)
    if not isinstance(flip, bool):
        raise TypeError(f"flip must be True or False, got {flip!r}.")
    of_side = " It is a share of the input's shorter side."
    check_between("edge_radius", edge_radius, 0, 1, ends="[)", hint=of_side)
    check_between("gradient_sigma", gradient_sigma, 0, 1, ends="(]", hint=of_side)
    check_between("gradient_power", gradient_power, 0, float("inf"), ends="()")
    check_shares(shares)
    place = call.only_spatial()
    image = call.inputs[place]
    side = min(image.shape[2:])
    at_input = call.network.input_gradients(call.inputs, place)

    # 1. Finer-CAM of the input, and of its mirror image.
    finer = finer_cam(call, layer, place, flip)

    # 2. Group-CAM, to which half of it is added.
    merged = group_cam(
        call,
        layer,
        n_groups=n_groups,
        denoise_percentile=denoise_percentile,
        denoise_at="input",
        show_progress=show_progress,
    )
    of_groups = divide_by_maximum(merged.maps[place]) + 0.5 * finer

    # 3. Edges.
    maps = guided_filter(torch.cat([finer, of_groups], 1), image, round(edge_radius * side))
    maps = divide_by_maximum(maps.flatten(0, 1).unsqueeze(1)).view_as(maps)

    # 4. Effects: what is scored where only a map's first positions are seen, less without them.
    masks = RankMasks.of(maps, shares)
    scores, queried = call.score_masks(masks, "Effects", show_progress=show_progress)
    shown, hidden = scores.view(*maps.shape[:2], len(shares), 2).unbind(-1)
    effects = without_rounding((shown - hidden).mean(-1), scores, ROUNDING_OF_SCORES)
    effects = torch.where(maps.flatten(2).any(2), effects, 0)  # what shows nothing ranks nothing

    # 5. The geometric mean, weighted by the effects.
    consensus = geometric_mean(maps, effect_weights(effects, maps).to(maps))

    # 6. Gradient of the input.
    consensus = sharpened(consensus, at_input, gradient_sigma * side, gradient_power)

    asked = queried.any(1).view(-1, *[1] * (maps.dim() - 1))
    found = call.for_each_input(torch.where(asked, consensus, 0))
    return ConsensusResult(found, queried, effects, merged.unmoved)
