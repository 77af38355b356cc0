"""Masks of groups, as Group-CAM makes them, with other choices."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from captum_groupcam.masking.groups import group_maps
from captum_groupcam.masking.masks import LayerMasks, denoise

from .runs import run_groups
from .steps import Probe

__all__ = ["At", "cut_out", "group_masks", "merged"]

#: Where masks are denoised.
At = Literal["layer", "input"]


def group_masks(
    probe: Probe,
    n_groups: int,
    *,
    order: str = "channel",
    balanced: bool = False,
    percentile: float | None = 70.0,
    denoise_at: At = "input",
    soft: bool = False,
) -> LayerMasks:
    """One mask for each group of channels.

    Args:
        probe (Probe): Has the activations and their weights.
        n_groups (int): Number of groups.
        order (str): What channels are sorted by before they are cut into groups, see
            :data:`~benchmarks.research.runs.ORDERS`. Default: "channel", as in the paper.
        balanced (bool): Whether groups have equal shares of Grad-CAM's mass rather than equal
            numbers of channels. Default: False.
        percentile (float, optional): As ``denoise_percentile`` of Group-CAM. Default: 70.0.
        denoise_at (str): "layer" or "input". Default: "input".
        soft (bool): Whether what is left is lowered to begin at zero, at the layer's resolution, so
            that masks have no cliffs. Default: False.
    """
    groups = run_groups(probe.contributions, n_groups, order=order, balanced=balanced)
    maps = group_maps(probe.activations, probe.weights, groups, n_groups)
    if soft and percentile is not None:
        level = maps.flatten(2).quantile(percentile / 100, dim=-1)
        return LayerMasks((maps - level.view(*level.shape, 1, 1)).relu())
    return cut_out(maps, percentile, denoise_at)


def cut_out(maps: Tensor, percentile: float | None, at: At) -> LayerMasks:
    """Masks of maps (N x G x h x w), denoised at the layer's resolution or the input's."""
    if percentile is None or at == "input":
        return LayerMasks(maps, percentile)
    return LayerMasks(denoise(maps, percentile))


def merged(probe: Probe, masks: LayerMasks, alphas: Tensor) -> Tensor:
    """ReLU of the sum of masks by their weights (N x G), at the input's resolution."""
    return probe.call.merge(masks, alphas)[0].relu()
