"""What Captum's methods of a layer become: one channel, at the resolution of the input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from captum.attr import LayerAttribution
from torch import Tensor

from captum_groupcam._captum import TargetType
from captum_groupcam.attr._around_captum import signed_sum
from captum_groupcam.attr._captums_layer import check_layer_of_captum
from captum_groupcam.masking.call import check_grid
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["sum_over_layer"]


def sum_over_layer(
    method: LayerAttribution,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    **options: Any,
) -> Tensor:
    """The sum over the channels of a layer that runs once, at the resolution of the input."""
    if layer.layer_call is not None:
        raise ValueError(
            "Captum's methods of a layer explain one that runs once: choose a layer that does, or "
            "a method of this package, such as layer_cam, which take layer_call."
        )
    layer = layer.at(inputs.shape[2:])
    check_layer_of_captum(method, layer, (inputs[:1],))
    attributions = method.attribute(
        inputs,
        target=target,
        **replace(layer, reshape_transform=None).keywords,
        **options,
    )
    grid = layer.to_grid(cast(Tensor, attributions))
    check_grid(grid, (inputs,))
    maps = signed_sum(grid)
    return cast(Tensor, LayerAttribution.interpolate(maps, inputs.shape[2:], "bilinear"))
