"""Maps of two kinds, and what the network says of each, for those that put them together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam.attr.functional.group_cam import group_cam
from captum_groupcam.attr.maps import divide_by_maximum, guided_filter
from captum_groupcam.masking.call import prepare
from captum_groupcam.masking.targets import TargetType
from captum_groupcam.networks.target_layer import TargetLayer

from .looks import averaged
from .questions import mean_effect
from .steps import Probe

__all__ = ["two_kinds", "with_effects"]

_SHARES = (0.15, 0.45)  # as in Consensus Group-CAM


def two_kinds(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_groups: int,
    n_shifts: int,
    contrast: float,
    prior: float,
) -> tuple[Probe, Tensor, Tensor]:
    """Views, and Group-CAM with a share of them: the network, and N x 1 x H x W each.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_groups (int): Groups of Group-CAM, a query each, and two more.
        n_shifts (int): As in :func:`~benchmarks.research.looks.views`, two queries each.
        contrast (float): The same.
        prior (float): Share of the views that is added to Group-CAM.
    """
    call = prepare(model, inputs, target, None, None)
    merged = group_cam(call, layer, n_groups=n_groups, denoise_at="input")
    probe = Probe(call, merged.activations, merged.weights)
    seen = averaged(probe, model, layer, target, n_shifts, contrast=contrast)
    return probe, seen, divide_by_maximum(merged.maps[0]) + prior * seen


def with_effects(
    probe: Probe, candidates: Sequence[Tensor], inputs: Tensor, guide: int
) -> tuple[Tensor, Tensor]:
    """M candidates that follow edges, with maxima of one, and their effects: four queries each.

    Args:
        probe (Probe): Whose network is asked.
        candidates (sequence of Tensor): Maps, N x 1 x H x W each.
        inputs (Tensor): N x C x H x W.
        guide (int): As in :func:`~benchmarks.research.choices.group_cam`.

    Returns:
        tuple of Tensor: Maps, N x M x H x W, and effects, N x M.
    """
    maps = guided_filter(torch.cat(list(candidates), 1), inputs, guide)
    maps = divide_by_maximum(maps.flatten(0, 1).unsqueeze(1)).view_as(maps)
    return maps, mean_effect(probe, maps, _SHARES)
