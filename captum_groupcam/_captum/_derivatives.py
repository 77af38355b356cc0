"""What a layer gives for some inputs, and derivatives of the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import torch
from captum._utils.gradient import _forward_layer_eval, compute_layer_gradients_and_eval
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn import Module
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_groupcam._captum._calls import ForwardFunc, run_forward, warn, without_class
from captum_groupcam._captum._hooks import NotStoredError, name_of, taking, watching
from captum_groupcam._captum._row_order import (
    MIXED,
    REORDERED,
    distinct_weights,
    is_mixed,
    is_reordered,
)
from captum_groupcam._compiled import eager, on_one_device, uncompiled

__all__ = [
    "goes_past",
    "gradients_of",
    "input_gradients",
    "layer_activations",
    "layer_curvature",
    "layer_gradients_and_activations",
]


#: What gradients in float16 are multiplied by on their way: its least number is 6e-8.
_SCALE = 2.0**10


def gradients_of(
    values: Tensor,
    places: Sequence[Tensor | GradientEdge],
    dtype: torch.dtype | None = None,
    *,
    allow_unused: bool = True,
    retain_graph: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of the sum of some values, those that pass through float16 without its underflow.

    Args:
        values (Tensor): N values with a graph.
        places (sequence of Tensor or GradientEdge): With respect to what.
        dtype (torch.dtype, optional): That of places that are not tensors. Default: None.
        allow_unused (bool, optional): Whether values may not depend on a place. Default: True.
        retain_graph (bool, optional): Whether more gradients follow. Default: False.

    Returns:
        tuple of Tensor or None: The gradients, float32 where they passed through float16; None for
        a place that the values do not depend on.

    Examples::

        >>> leaf = torch.ones(2, dtype=torch.float16, requires_grad=True)
        >>> gradients_of(leaf.mean() * 2**-13 * 2**-13, [leaf])[0] * 2**27
        tensor([1., 1.])
    """
    kind = values.device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    dtypes = [values.dtype, dtype, autocast, *(p.dtype for p in places if isinstance(p, Tensor))]
    ones, where = torch.ones_like(values), cast(Sequence[Tensor], places)
    if torch.float16 in dtypes:
        found = torch.autograd.grad(
            values, where, _SCALE * ones, retain_graph=True, allow_unused=allow_unused
        )
        scaled = tuple(None if one is None else one.float() / _SCALE for one in found)
        if all(one is None or bool(one.isfinite().all()) for one in scaled):
            return scaled
    return torch.autograd.grad(
        values, where, ones, retain_graph=retain_graph, allow_unused=allow_unused
    )


def layer_activations(
    forward_func: ForwardFunc,
    layer: Module,
    inputs: tuple[Tensor, ...],
    additional_forward_args: tuple[Any, ...],
    select: Callable[[Tensor], object] | None = None,
    *,
    attribute_to_layer_input: bool = False,
    layer_call: int | None = None,
    device_ids: list[int] | None = None,
) -> Tensor:
    """What the layer gives (or gets) for the inputs, without a graph: N x ...

    The output is passed to ``select``, if that is given, for its errors.

    Raises:
        ValueError: If the layer is never called, several times without a layer_call, or does not
            have exactly one tensor.
    """
    network, device_ids = eager(forward_func), _devices(forward_func, device_ids)
    if select is not None:
        network = _selecting(network, select)
    if layer_call is not None or device_ids is None:
        with taking(layer, attribute_to_layer_input, layer_call, begin_graph=False) as taken:
            run_forward(network, inputs, additional_forward_args)
            return _dequantized(taken.value)
    with torch.no_grad(), watching(layer, attribute_to_layer_input):
        (activations,) = _forward_layer_eval(
            network,
            inputs,
            layer,
            additional_forward_args or None,
            device_ids=device_ids,
            attribute_to_layer_input=attribute_to_layer_input,
        )
    return _dequantized(cast(Tensor, activations))


def _selecting(network: ForwardFunc, select: Callable[[Tensor], object]) -> ForwardFunc:
    def selected(*args: Any) -> Tensor:
        output = run_forward(network, args, ())
        select(output)
        return output

    return selected


def layer_gradients_and_activations(
    forward_func: ForwardFunc,
    layer: Module,
    inputs: tuple[Tensor, ...],
    additional_forward_args: tuple[Any, ...],
    select: Callable[[Tensor], Tensor],
    *,
    attribute_to_layer_input: bool = False,
    layer_call: int | None = None,
    device_ids: list[int] | None = None,
    checks_order: bool = False,
    to_grid: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of the selected outputs with respect to the layer, and its activations.

    What runs before stores nothing, unless the layer's input went elsewhere before the layer ran,
    which costs a second pass. Parameters get no gradient.

    Args:
        forward_func (Callable): The network.
        layer (Module): The layer.
        inputs (tuple of Tensor): Inputs, N samples each.
        additional_forward_args (tuple): Passed on after the inputs.
        select (Callable): Turns the output into one value a sample (N).
        attribute_to_layer_input (bool): Whether the layer's input is meant. Default: False.
        layer_call (int, optional): Which call of the layer is meant, from 0. Default: None, its
            only one.
        device_ids (list of int, optional): As in Captum, for DataParallel. Default: None.
        checks_order (bool): Whether to warn of a layer that has the samples in another order, at
            the price of one more pass back to it; not with DataParallel. Default: False.
        to_grid (Callable, optional): What brings the layer to a row for each sample, to be checked
            with its order. Default: None, nothing has to.

    Raises:
        ValueError: If the layer is never called, several times without a layer_call, does not have
            exactly one tensor, or the selected output does not depend on it; if ``to_grid`` mixes
            the samples.
        RuntimeError: If the forward or backward pass fails otherwise.
    """
    network, device_ids = eager(forward_func), _devices(forward_func, device_ids)
    if layer_call is not None or device_ids is None:
        asked = (network, layer, inputs, additional_forward_args, select)
        place = (attribute_to_layer_input, layer_call)
        checks = (checks_order, to_grid)
        with suppress(NotStoredError):
            return _gradients_of_call(*asked, *place, *checks, stores_all=False)
        return _gradients_of_call(*asked, *place, *checks, stores_all=True)

    # The replicas of DataParallel are gathered outside the layer's thread, where grad mode would
    # still be off; its graph covers the whole network, as Captum's always does.
    def selected(*args: Any) -> Tensor:
        with torch.enable_grad():
            return select(run_forward(network, args, ()))

    with watching(layer, attribute_to_layer_input):
        try:
            (gradients,), (activations,) = compute_layer_gradients_and_eval(
                selected,
                layer,
                inputs,
                additional_forward_args=additional_forward_args or None,
                device_ids=device_ids,
                attribute_to_layer_input=attribute_to_layer_input,
            )
        except RuntimeError as error:
            unreached = ("not have been used in the graph", "does not require grad")
            if not any(text in str(error) for text in unreached):
                raise
            raise ValueError(_without_gradient(layer)) from error
    return gradients.detach(), activations.detach()


def _gradients_of_call(
    network: ForwardFunc,
    layer: Module,
    inputs: tuple[Tensor, ...],
    additional_forward_args: tuple[Any, ...],
    select: Callable[[Tensor], Tensor],
    at_input: bool,
    layer_call: int | None,
    checks_order: bool,
    to_grid: Callable[[Tensor], Tensor] | None,
    *,
    stores_all: bool,
) -> tuple[Tensor, Tensor]:
    """The same without Captum, whose hooks see the passes of other threads, too."""
    gradients, weighted, weights = None, None, None
    inputs = _leading_gradients(inputs)
    with taking(layer, at_input, layer_call, begin_graph=True, stores_all=stores_all) as taken:
        output = run_forward(network, inputs, additional_forward_args)
        activations = taken.value
        with torch.enable_grad():  # also where the network itself runs without gradients
            values = select(output)
        if values.requires_grad and _has_derivatives(values, taken.place):
            place = ([taken.place], activations.dtype)
            if checks_order:
                weights = distinct_weights(len(values)).to(values)
                shape = (-1, *[1] * (values.dim() - 1))
                with torch.enable_grad():
                    product = values * weights.view(shape)
                with suppress(RuntimeError):  # where a graph takes one pass only
                    (weighted,) = gradients_of(product, *place, retain_graph=True)
            (gradients,) = gradients_of(values, *place)
    if gradients is None:
        raise ValueError(_without_gradient(layer))
    if weights is not None and weighted is not None:
        if is_reordered(gradients, weighted, weights):
            warn(REORDERED.format(name_of(layer)))
        elif to_grid is not None and is_mixed(to_grid(gradients), to_grid(weighted), weights):
            raise ValueError(MIXED.format(name_of(layer)))
    return gradients, activations.detach()


def goes_past(
    forward_func: ForwardFunc,
    layer: Module,
    inputs: tuple[Tensor, ...],
    additional_forward_args: tuple[Any, ...],
    select: Callable[[Tensor], Tensor],
    *,
    layer_call: int | None = None,
) -> bool:
    """Whether the input of a layer reaches the output on other ways than through the layer, too.

    Gradients tell; without any it is taken not to. Arguments are those of
    :func:`layer_gradients_and_activations`.

    Raises:
        ValueError: As there.
    """
    network, inputs = on_one_device(forward_func), _leading_gradients(inputs)
    with taking(layer, True, layer_call, begin_graph=True, apart=True) as taken:
        values = select(run_forward(network, inputs, additional_forward_args))
        inside = taken.inside
        if inside is None or not (values.requires_grad and _has_derivatives(values, taken.place)):
            return False
        ways: Any = (taken.place, inside)
        found = torch.autograd.grad(values, ways, torch.ones_like(values), allow_unused=True)
    whole, through = (torch.zeros_like(inside) if one is None else one for one in found)
    return not torch.allclose(whole, through, rtol=1e-3, atol=0)


def _leading_gradients(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs through which gradients pass, also in networks whose parameters are frozen."""
    with torch.enable_grad():
        # Layers that work in place must not meet a leaf.
        return tuple(
            one.detach().clone().requires_grad_().clone() if one.is_floating_point() else one
            for one in inputs
        )


def _has_derivatives(values: Tensor, place: Tensor | GradientEdge) -> bool:
    """Whether no operation behind a place lacks a derivative, of which torch would only warn."""
    seen, waiting = set(), [values.grad_fn]
    if isinstance(place, GradientEdge):
        seen.add(place.node)  # what comes before it needs none
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name().endswith("WarnNotImplemented"):
            return False
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
    return True


def layer_curvature(
    forward_func: ForwardFunc,
    layer: Module,
    inputs: tuple[Tensor, ...],
    additional_forward_args: tuple[Any, ...],
    select: Callable[[Tensor], Tensor],
    *,
    attribute_to_layer_input: bool = False,
    layer_call: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients, the product of the Hessian with the activations, and activations of a layer.

    The network runs as written, on one device. Arguments are those of
    :func:`layer_gradients_and_activations`.

    Raises:
        ValueError: As there.
    """
    network, inputs = on_one_device(forward_func), _leading_gradients(inputs)
    # Fused attention has no second derivative.
    with (
        sdpa_kernel(SDPBackend.MATH),
        taking(
            layer,
            attribute_to_layer_input,
            layer_call,
            begin_graph=True,
            stores_all=attribute_to_layer_input,
        ) as taken,
    ):
        values = select(run_forward(network, inputs, additional_forward_args))
        activations = taken.value
        gradients = None
        if values.requires_grad:
            (gradients,) = torch.autograd.grad(
                values.sum(), taken.place, create_graph=True, allow_unused=True
            )
        if gradients is None:
            raise ValueError(_without_gradient(layer))
        products = None
        if gradients.requires_grad:
            (products,) = torch.autograd.grad(
                gradients, taken.place, activations.detach(), allow_unused=True
            )
    found = (gradients, torch.zeros_like(gradients) if products is None else products, activations)
    gradients, products, activations = (tensor.detach() for tensor in found)
    return gradients, products, activations


def input_gradients(
    forward_func: ForwardFunc,
    inputs: tuple[Tensor, ...],
    which: int,
    additional_forward_args: tuple[Any, ...],
    select: Callable[[Tensor], Tensor],
) -> Tensor:
    """Gradients of the selected outputs with respect to one of the inputs.

    Parameters get no gradient, though the graph covers the whole network.

    Args:
        forward_func (Callable): The network.
        inputs (tuple of Tensor): Inputs, N samples each.
        which (int): The place of the input.
        additional_forward_args (tuple): Passed on after the inputs.
        select (Callable): Turns the output into one value a sample (N).

    Raises:
        ValueError: If the selected output does not depend on the input.
    """
    with torch.enable_grad(), uncompiled():
        leaf = inputs[which].detach().clone().requires_grad_()
        # Layers that work in place must not meet a leaf.
        given = (*inputs[:which], leaf.clone(), *inputs[which + 1 :])
        values = select(run_forward(eager(forward_func), given, additional_forward_args))
        gradients = None
        if values.requires_grad:
            (gradients,) = gradients_of(values, [leaf])
    if gradients is None:
        raise ValueError(
            "The output has no gradient with respect to the input: the network computes it without "
            "gradients, as quantised ones do. GroupCAM with gradient_free=True, ScoreCAM and RISE "
            "need none."
        )
    return gradients


def _devices(forward_func: ForwardFunc, device_ids: list[int] | None) -> list[int] | None:
    """Those of DataParallel, also where nobody named them; None without it."""
    network = eager(forward_func)
    if device_ids is None and isinstance(network, torch.nn.DataParallel):
        return list(network.device_ids)
    return device_ids


def _dequantized(tensor: Tensor) -> Tensor:
    tensor = without_class(tensor.detach())
    return tensor.dequantize() if tensor.is_quantized else tensor


def _without_gradient(layer: Module) -> str:
    return (
        f"The output has no gradient with respect to the layer {name_of(layer)}: the output does "
        "not depend on it, or the network computes it without gradients, as quantised ones do, and "
        "checkpoints with use_reentrant=True. Choose a layer on the way to the output, or what "
        "needs no gradients: GroupCAM with gradient_free=True, ScoreCAM or RISE."
    )
