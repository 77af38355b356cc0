"""The algorithm of Consensus Group-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from captum_groupcam.attr._mirrored import check_no_places, check_nothing_lies_over, mirrored
from captum_groupcam.attr._shared import shared_arguments
from captum_groupcam.attr.functional.group_cam import group_cam
from captum_groupcam.attr.functional.results import ConsensusResult
from captum_groupcam.attr.maps import divide_by_maximum, guided_filter, weighted_sum
from captum_groupcam.masking.baselines import gaussian_blur
from captum_groupcam.masking.call import Call, without_rounding
from captum_groupcam.masking.checks import check_between, check_count
from captum_groupcam.masking.masks import check_percentile, upsample
from captum_groupcam.masking.network import tensors_of
from captum_groupcam.masking.ranks import RankMasks, check_shares
from captum_groupcam.masking.targets import Contrast, Target
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["consensus_group_cam", "weights_of_effects"]

_STRENGTH, _N_REFERENCES = 0.6, 3  #: As in Finer-CAM.
_PRIOR = 0.5  #: of Finer-CAM, added to Group-CAM.
_FLOOR = 0.02  #: Where one map is zero, the other still ranks.


@shared_arguments
def consensus_group_cam(
    call: Call,
    layer: TargetLayer,
    *,
    n_groups: int = 19,
    denoise_percentile: float | None = 70.0,
    flip: bool | None = None,
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
        flip (bool, optional): Whether Finer-CAM is the mean over the input and the input mirrored
            along its last axis. Default: None, where the input has two or three spatial dimensions,
            and no target, additional argument or region names a place that would not be mirrored.
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
        ValueError: If an option is out of range, several inputs have spatial dimensions, or
            ``flip`` is true and something names a place.

    Examples::

        >>> from captum_groupcam.masking.call import prepare
        >>> features = torch.nn.Conv2d(3, 8, 3)
        >>> network = torch.nn.Sequential(features, torch.nn.Flatten(), torch.nn.Linear(288, 5))
        >>> call = prepare(network, torch.rand(2, 3, 8, 8), 3, None)
        >>> consensus_group_cam(call, TargetLayer(features)).effects.shape
        torch.Size([2, 2])
    """
    check_count("n_groups", n_groups)
    check_percentile(denoise_percentile)
    if not (flip is None or isinstance(flip, bool)):
        raise TypeError(f"flip must be True, False or None, got {flip!r}.")
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
    finer = _finer_cam(call, layer, place)
    if _is_mirrored(call, place, flip):
        turned = call._replace(
            inputs=mirrored(call.inputs), network=replace(call.network, follows=True)
        )
        finer = (finer + _finer_cam(turned, layer, place).flip(-1)) / 2

    # 2. Group-CAM, to which a share of it is added.
    merged = group_cam(
        call,
        layer,
        n_groups=n_groups,
        denoise_percentile=denoise_percentile,
        denoise_at="input",
        show_progress=show_progress,
    )
    of_groups = divide_by_maximum(merged.maps[place]) + _PRIOR * finer

    # 3. Edges.
    maps = guided_filter(torch.cat([finer, of_groups], 1), image, round(edge_radius * side))
    maps = divide_by_maximum(maps.flatten(0, 1).unsqueeze(1)).view_as(maps)

    # 4. Effects: what is scored where only a map's first positions are seen, less without them.
    masks = RankMasks.of(maps, shares)
    scores, _ = call.score_masks(masks, "Effects", show_progress=show_progress)
    shown, hidden = scores.view(*maps.shape[:2], len(shares), 2).unbind(-1)
    effects = (shown - hidden).mean(-1)

    # 5. The geometric mean, weighted by the effects.
    weights = weights_of_effects(effects).to(maps).view(*maps.shape[:2], *[1] * (maps.dim() - 2))
    logarithms = (weights * (maps + _FLOOR).log()).sum(1, keepdim=True)
    consensus = (logarithms.exp() - _FLOOR).relu()

    # 6. Gradient of the input.
    sigma = gradient_sigma * side
    magnitudes = gaussian_blur(at_input.abs().sum(1, keepdim=True), 2 * round(2 * sigma) + 1, sigma)
    consensus = consensus * divide_by_maximum(magnitudes) ** gradient_power

    asked = merged.queried.any(1).view(-1, *[1] * (maps.dim() - 1))
    consensus = torch.where(asked, consensus, 0)
    return ConsensusResult(call.for_each_input(consensus), merged.queried, effects)


def weights_of_effects(effects: Tensor) -> Tensor:
    """Shares of the fourth powers of effects, of which those below zero count as zero.

    How many times larger one is counts, not how sure the network is of the class.

    Args:
        effects (Tensor): N x M.

    Returns:
        Tensor: N x M, each row with a sum of one; all alike where no effect is above zero.

    Examples::

        >>> weights_of_effects(torch.tensor([[0.1, 0.2], [-0.1, 0.3], [-0.1, -0.2]]))
        tensor([[0.0588, 0.9412],
                [0.0000, 1.0000],
                [0.5000, 0.5000]])
    """
    positive = effects.relu()
    positive = torch.where(positive.any(1, keepdim=True), positive, 1)
    powers = (positive / positive.amax(1, keepdim=True)) ** 4
    return powers / powers.sum(1, keepdim=True)


def _finer_cam(call: Call, layer: TargetLayer, place: int) -> Tensor:
    """Finer-CAM at the input's resolution, with a maximum of one.

    It is Grad-CAM where the output, which a pass has shown by now, has no classes.
    """
    target, output = call.network.target, call.network.once.output
    if isinstance(target, Target) and target.indices is not None and output and output[0] > 1:
        contrast = Contrast(target, _STRENGTH, _N_REFERENCES)
        call = call._replace(network=replace(call.network, target=contrast))
    gradients, activations = call.gradients_and_activations(layer)
    weights = gradients.flatten(2).mean(2)
    weights = without_rounding(weights, gradients.abs().flatten(2).mean(2))
    maps = weighted_sum(activations, weights).relu()
    return divide_by_maximum(upsample(maps, call.inputs[place].shape[2:]))


def _is_mirrored(call: Call, place: int, flip: bool | None) -> bool:
    """Whether the input is mirrored, too: if it can be, unless the caller says."""
    if flip is False or (flip is None and call.inputs[place].dim() < 4):
        return False
    network = call.network
    indices = getattr(network.target, "indices", None)
    targets = [] if indices is None else [tuple(indices[0].tolist())]
    try:
        check_nothing_lies_over(call.inputs, tensors_of(network.additional_forward_args).items())
        check_no_places(network.forward_func, call.inputs, targets, network.once.output)
    except ValueError:
        if flip:
            raise
        return False
    return True
