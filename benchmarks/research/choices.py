"""Other choices at the steps of Group-CAM: each group is one query, as in the paper."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from captum_groupcam.attr.maps import divide_by_maximum, guided_filter
from captum_groupcam.masking.masks import upsample
from captum_groupcam.masking.queries import score_samples
from captum_groupcam.masking.targets import TargetType
from captum_groupcam.networks.target_layer import TargetLayer

from .finish import detail, interleaved, smoothed, with_prior
from .masks import group_masks, merged
from .regression import mask_cells, posterior, smoothness
from .steps import Probe, score_gains

__all__ = ["detailed", "group_cam", "shifts", "two_layers"]


def group_cam(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_groups: int = 32,
    score: str = "probability",
    baseline: str = "blur",
    solve: float | None = None,
    length: float = 0.15,
    guide: int = 0,
    smooth: float = 0.0,
    prior: float = 0.0,
    **masks: Any,
) -> Tensor:
    """Group-CAM with other choices at each step: 34 queries.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_groups (int, optional): G. Default: 32.
        score (str, optional): See :data:`~benchmarks.research.steps.SCORES`.
            Default: "probability".
        baseline (str, optional): See :data:`~benchmarks.research.steps.BASELINES`.
            Default: "blur".
        solve (float, optional): Merges by regression with this share of noise and Grad-CAM as the
            prior, rather than by the sum of the masks. Default: None.
        length (float, optional): How smooth a solved map is, as a share of the sides.
            Default: 0.15.
        guide (int, optional): Radius in pixels of the filter that lets the map follow the image's
            edges. Default: 0, none.
        smooth (float, optional): Pixels by which the map is blurred. Default: 0.
        prior (float, optional): Share of Grad-CAM that is added. Default: 0.
        **masks (Any, optional): See :func:`~benchmarks.research.masks.group_masks`.
    """
    probe = Probe.ask(model, layer, inputs, target, score=score, baseline=baseline)
    made = group_masks(probe, n_groups, **masks)
    alphas = score_gains(probe, made)
    if solve is None:
        maps = merged(probe, made, alphas)
    else:
        grid = probe.activations.shape[2:]
        rows = mask_cells(made, probe.size, grid)
        expected = probe.grad_cam.flatten(1)
        found = posterior(rows, alphas, expected, smoothness(grid, length, rows), noise=solve)
        maps = upsample(found.view(-1, 1, *grid), probe.size)
    maps = guided_filter(maps, inputs, guide)
    return with_prior(smoothed(maps, smooth), probe, prior)


def shifts(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_groups: int = 28,
    smooth: float = 0.0,
    prior: float = 0.0,
    **masks: Any,
) -> Tensor:
    """Group-CAM on a grid of half the spacing, which shifted images fill in: 34 queries.

    A cell of the layer is as wide as the network's stride. The image moved by a quarter of that to
    either side, along both axes, gives activations in between: four passes without gradients.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_groups (int, optional): G. Default: 28.
        smooth (float, optional): As in :func:`group_cam`. Default: 0.
        prior (float, optional): As in :func:`group_cam`. Default: 0.
        **masks (Any, optional): See :func:`~benchmarks.research.masks.group_masks`.
    """
    probe = Probe.ask(model, layer, inputs, target)
    probe = probe._replace(activations=finer_activations(probe, layer))
    made = group_masks(probe, n_groups, **masks)
    maps = merged(probe, made, score_gains(probe, made))
    return with_prior(smoothed(maps, smooth), probe, prior)


def two_layers(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    second: str,
    n_groups: int = 15,
    product: bool = True,
    prior: float = 0.0,
    guide: int = 0,
    **masks: Any,
) -> Tensor:
    """Group-CAM of two layers with half the groups each: 33 queries.

    An earlier layer is sharper, and knows less of the class.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        second (str): Dotted name of the other layer.
        n_groups (int, optional): Groups of each layer. Default: 15.
        product (bool, optional): Whether the maps are multiplied (the other one raised by a tenth
            of its maximum), or else added. Default: True.
        prior (float, optional): As in :func:`group_cam`, for each layer. Default: 0.
        guide (int, optional): As in :func:`group_cam`, for the result. Default: 0.
        **masks (Any, optional): See :func:`~benchmarks.research.masks.group_masks`.
    """
    probe = Probe.ask(model, layer, inputs, target)
    hidden = score_samples(probe.call.network, probe.call.hidden)
    maps = []
    for one in (probe, Probe.ask(model, TargetLayer.of(model, second), inputs, target)):
        made = group_masks(one, n_groups, **masks)
        one_map = merged(one, made, score_gains(one, made, reference=hidden))
        maps.append(divide_by_maximum(with_prior(one_map, one, prior)))
    both = maps[0] * (0.1 + maps[1]) if product else maps[0] + maps[1]
    return guided_filter(both, inputs, guide)


def detailed(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_groups: int = 29,
    copies: int = 1,
    sigma: float = 6.0,
    power: float = 0.5,
    prior: float = 0.1,
    guide: int = 0,
    **masks: Any,
) -> Tensor:
    """Group-CAM says which part, the input's gradient which pixels of it: 34 queries.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_groups (int, optional): G. Default: 29, for a pass back to the input counts three.
        copies (int, optional): Such passes: see :func:`~benchmarks.research.finish.detail`.
            Default: 1.
        sigma (float, optional): Pixels by which the gradient's magnitudes are blurred.
            Default: 6.0.
        power (float, optional): To which power they are taken. Default: 0.5.
        prior (float, optional): As in :func:`group_cam`. Default: 0.1.
        guide (int, optional): As in :func:`group_cam`. Default: 0.
        **masks (Any, optional): See :func:`~benchmarks.research.masks.group_masks`.
    """
    probe = Probe.ask(model, layer, inputs, target)
    made = group_masks(probe, n_groups, **masks)
    maps = with_prior(merged(probe, made, score_gains(probe, made)), probe, prior)
    maps = guided_filter(maps, inputs, guide)
    return maps * detail(model, inputs, target, sigma=sigma, copies=copies) ** power


def finer_activations(probe: Probe, layer: TargetLayer) -> Tensor:
    """Activations at twice the layer's resolution, N x K x 2h x 2w: four queries."""
    (inputs,), cells = probe.call.inputs, probe.activations.shape[2:]
    down, right = (round(s / c / 4) for s, c in zip(probe.size, cells, strict=True))
    windows = (moved(inputs, y, x) for y in (-down, down) for x in (-right, right))
    return interleaved([probe.activations_of(layer, window) for window in windows])


def moved(inputs: Tensor, down: int, right: int) -> Tensor:
    """What a window sees that is moved down and right, the border repeated: N x C x H x W."""
    height, width = inputs.shape[2:]
    reach = max(abs(down), abs(right))
    padded = F.pad(inputs, (reach,) * 4, mode="replicate")
    return padded[..., reach + down :, reach + right :][..., :height, :width].contiguous()
