"""Maps of several kinds, averaged by what the network says of each."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module

from captum_groupcam.masking.targets import TargetType
from captum_groupcam.networks.target_layer import TargetLayer

from .candidates import two_kinds, with_effects
from .finish import detail

__all__ = ["judged"]


def judged(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_groups: int = 12,
    n_shifts: int = 4,
    contrast: float = 0.6,
    prior: float = 0.1,
    sharpness: float = 10.0,
    power: float = 0.0,
    sigma: float = 6.0,
    guide: int = 8,
) -> Tensor:
    """Views, Group-CAM and their product, averaged by their effects: 34 queries.

    Effects are those that Consensus Group-CAM weighs by, with two shares of the pixels. An average
    changes less with the image than a selection does.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_groups (int, optional): Groups of Group-CAM. Default: 12.
        n_shifts (int, optional): As in :func:`~benchmarks.research.looks.views`. Default: 4.
        contrast (float, optional): As in :func:`~benchmarks.research.looks.views`. Default: 0.6.
        prior (float, optional): Share of the views that is added to Group-CAM. Default: 0.1.
        sharpness (float, optional): Weights are a softmax of the effects times this; a million
            selects the map with the largest effect. Default: 10.0.
        power (float, optional): To which power the gradient of the input is taken that the average
            is multiplied by, for three queries. Default: 0, not asked for.
        sigma (float, optional): As in :func:`~benchmarks.research.choices.detailed`. Default: 6.0.
        guide (int, optional): As in :func:`~benchmarks.research.choices.group_cam`. Default: 8.
    """
    probe, seen, of_groups = two_kinds(
        model, layer, inputs, target,
        n_groups=n_groups, n_shifts=n_shifts, contrast=contrast, prior=prior,
    )  # fmt: skip
    maps, effects = with_effects(probe, [seen, of_groups, seen * of_groups], inputs, guide)
    weights = (sharpness * effects).softmax(1).to(maps)
    average = (weights[..., None, None] * maps).sum(1, keepdim=True)
    return average * detail(model, inputs, target, sigma=sigma) ** power if power else average
