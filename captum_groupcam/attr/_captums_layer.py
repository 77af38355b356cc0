"""Captum's classes of a layer: checks for what they would answer wrongly without an error."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any, cast

from captum.attr import LayerAttribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.masking.call import check_places, is_spatial
from captum_groupcam.networks.dependence import independent_of
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.threads import reached_modules

__all__ = ["captums_map", "check_layer_of_captum"]


def captums_map(
    method: LayerAttribution,
    layer: TargetLayer,
    inputs: Tensor | tuple[Tensor, ...],
    target: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Tensor, ...]:
    """The map of a class of Captum's for each input: that of the layer, or zero (N x 1)."""
    name = type(method).__name__
    if layer.reshape_transform is not None or layer.layer_call is not None:
        what = "reshape_transform" if layer.reshape_transform is not None else "layer_call"
        raise ValueError(
            f"Captum's {name} takes no {what}: use a class of this package, such as GradCAM."
        )
    given = {"attribute_to_layer_input": layer.attribute_to_layer_input, **kwargs}
    parameters = list(inspect.signature(method.attribute).parameters)
    if parameters[1:2] == ["target"]:
        args = (target, *args)
    elif args:
        raise TypeError(
            f"{name}.attribute takes {parameters[1]} after the inputs, not the target: give "
            "arguments after the target by their names."
        )
    else:
        given["target"] = target
    whole = inputs if isinstance(inputs, tuple) else (inputs,)
    bound = inspect.signature(method.attribute).bind_partial(inputs, *args, **given).arguments
    extra = bound.get("additional_forward_args")
    extra = () if extra is None else extra if isinstance(extra, tuple) else (extra,)
    layer = replace(layer, attribute_to_layer_input=bool(bound.get("attribute_to_layer_input")))
    check_layer_of_captum(method, layer, whole, extra)
    found = method.attribute(inputs, *args, **given)
    if not isinstance(found, Tensor) or found.dim() < 3 or found.shape[1] != 1:
        what = f"{tuple(found.shape)}" if isinstance(found, Tensor) else "several tensors"
        raise ValueError(
            f"Maps of one channel are merged, N x 1 x spatial; {name} gives {what}. Use a class "
            "that gives a map, such as LayerGradCam or those of this package, or one layer at a "
            "time: METHODS['layer_conductance'] and its like sum over channels."
        )
    maps = found.detach()
    return tuple(maps if is_spatial(one) else maps.new_zeros(len(one), 1) for one in whole)


def check_layer_of_captum(
    method: LayerAttribution,
    layer: TargetLayer,
    inputs: tuple[Tensor, ...],
    extra: tuple[Any, ...] = (),
) -> None:
    """Refuses a layer that runs several times, misses an input, or is not read as it lies."""

    def look(seen: tuple[Tensor, ...], arguments: tuple[Any, ...] = extra) -> Tensor:
        activations = _captum.layer_activations(
            method.forward_func,
            cast(Any, method.layer),
            seen,
            arguments,
            attribute_to_layer_input=layer.attribute_to_layer_input,
        )
        return layer.to_grid(activations)

    spatial = [which for which, one in enumerate(inputs) if is_spatial(one)]
    shape = tuple(look(inputs).shape)
    still = independent_of(inputs, look, spatial) if len(spatial) > 1 else []
    if still:
        raise ValueError(
            f"The layer {layer} does not depend on input{'s' if len(still) > 1 else ''} "
            f"{' and '.join(map(str, still))}, whose map would be that of another input. Choose a "
            "layer that all inputs lead to, or pass the others as additional_forward_args."
        )
    if spatial:
        n = len(inputs[0])

        def first(one: Any) -> Any:
            dealt = isinstance(one, Tensor) and one.shape[:1] == (n,)
            return one[:1] if dealt else one

        row, arguments = tuple(map(first, inputs)), tuple(map(first, extra))
        check_places(
            shape,
            row,
            spatial[0],
            lambda seen: look(seen, arguments),
            layer,
            masked=False,
            network=lambda: reached_modules(method.forward_func),
        )
