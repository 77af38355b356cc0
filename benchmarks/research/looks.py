"""Maps of the image looked at in several ways: mirrored, and moved by part of a cell."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam.attr.maps import divide_by_maximum, guided_filter
from captum_groupcam.masking.masks import upsample
from captum_groupcam.masking.targets import TargetType
from captum_groupcam.networks.target_layer import TargetLayer

from .choices import moved
from .finish import detail
from .steps import Probe

__all__ = ["views"]


def views(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_shifts: int = 4,
    reach: float = 0.5,
    contrast: float = 0.0,
    guide: int = 0,
    power: float = 0.0,
    sigma: float = 6.0,
) -> Tensor:
    """Grad-CAM of the image mirrored and moved, put back and averaged: nine queries.

    What does not depend on the way of looking is stable, and moves of half a cell fill in the
    layer's grid.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_shifts (int, optional): Ways to move the image, each looked at twice: 1 (not at all), 2 or
            4. Default: 4.
        reach (float, optional): How far apart they are, in cells of the layer. Default: 0.5.
        contrast (float, optional): Share of the likeliest other classes that is taken off the
            class's logit, as in Finer-CAM (whose share is 0.6). Default: 0, the gradient of the
            probability.
        guide (int, optional): As in :func:`~benchmarks.research.choices.group_cam`. Default: 0.
        power (float, optional): To which power the gradient of the input is taken, averaged over
            the image and its mirrored one (six queries), that the map is multiplied by.
            Default: 0, not asked for.
        sigma (float, optional): As in :func:`~benchmarks.research.choices.detailed`. Default: 6.0.
    """
    probe = Probe.ask(model, layer, inputs, target)
    maps = averaged(probe, model, layer, target, n_shifts, reach, contrast)
    maps = guided_filter(maps, inputs, guide)
    if not power:
        return maps
    pixels = detail(model, inputs, target, sigma=sigma)
    pixels = pixels + detail(model, inputs.flip(-1), target, sigma=sigma).flip(-1)
    return maps * pixels**power


def averaged(
    probe: Probe,
    model: Module,
    layer: TargetLayer,
    target: TargetType,
    n_shifts: int,
    reach: float = 0.5,
    contrast: float = 0.0,
) -> Tensor:
    """Grad-CAM averaged over ways of looking, each with a maximum of one: N x 1 x H x W."""
    (inputs,), cells = probe.call.inputs, probe.activations.shape[2:]
    y, x = (round(reach * s / c / 2) for s, c in zip(inputs.shape[2:], cells, strict=True))
    ways = {1: [(0, 0)], 2: [(y, x), (-y, -x)], 4: [(y, x), (-y, -x), (-y, x), (y, -x)]}
    if n_shifts not in ways:
        raise ValueError(f"n_shifts must be 1, 2 or 4, got {n_shifts}.")
    maps = []
    for down, right in ways[n_shifts]:
        seen = moved(inputs, down, right)
        for mirrored in (False, True):
            image = seen.flip(-1) if mirrored else seen
            score = "logit" if contrast else "probability"
            one = Probe.ask(model, layer, image, target, score=score, contrast=contrast)
            found = divide_by_maximum(upsample(one.grad_cam, one.size))
            maps.append(moved(found.flip(-1) if mirrored else found, -down, -right))
    return torch.stack(maps).mean(0)
