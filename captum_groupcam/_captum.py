"""The only place that touches Captum's private helpers."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar, cast

import torch
from captum._utils.common import _run_forward
from captum._utils.gradient import _forward_layer_eval, compute_layer_gradients_and_eval
from captum._utils.progress import NullProgress, progress
from captum._utils.typing import TargetType
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from captum.log import log_usage as _log_usage
from torch import Tensor
from torch.nn import Module
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_groupcam._compiled import eager, on_one_device, uncompiled
from captum_groupcam.threads import exclusive

__all__ = [
    "LRP_RULES",
    "ForwardFunc",
    "TargetType",
    "input_gradients",
    "layer_activations",
    "layer_curvature",
    "layer_gradients_and_activations",
    "log_usage",
    "progress_bar",
    "replacing",
    "run_forward",
    "warn",
]

ForwardFunc: TypeAlias = Callable[..., Any]
#: How relevance is passed back through a module, by its name in the papers.
LRP_RULES: dict[str, Callable[[], Any]] = {
    "gamma": GammaRule,
    "epsilon": EpsilonRule,
    "alpha1_beta0": Alpha1_Beta0_Rule,
}
_Function = TypeVar("_Function", bound=Callable[..., Any])


def log_usage(function: _Function) -> _Function:
    """Captum's usage log, which Insights relies on, around a call that has its network alone.

    Insights calls ``attribute.__wrapped__``, which is that call.
    """
    return cast(_Function, _log_usage()(exclusive()(function)))


def warn(message: str) -> None:
    """Warns on behalf of the caller: the first one outside of the library and of Captum."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and _is_inside(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _is_inside(module: str) -> bool:
    return module.partition(".")[0] in {"captum", "captum_groupcam"}


def progress_bar(description: str, total: int, show: bool) -> Any:
    """Captum's progress bar as a context manager with ``update(n)``."""
    return progress(desc=description, total=total) if show else NullProgress()


def run_forward(
    forward_func: ForwardFunc, inputs: tuple[Tensor, ...], additional_forward_args: tuple[Any, ...]
) -> Tensor:
    """Calls the forward function as Captum does and checks that a tensor comes back.

    Raises:
        TypeError: If the forward function returns anything else.
        ValueError: If it fails for inputs that seem to lack the batch dimension.
        RuntimeError: If it fails otherwise.
    """
    try:
        output = _run_forward(
            forward_func, inputs, additional_forward_args=additional_forward_args or None
        )
    except (RuntimeError, ValueError) as error:
        if (missing := _missing_axes(forward_func, inputs)) is not None:
            raise ValueError(missing) from error
        raise
    if not isinstance(output, Tensor):
        raise TypeError(
            f"forward_func returned a {type(output).__name__}, expected a tensor. Wrap it so "
            "that it returns the tensor to explain: captum_groupcam.networks.outputs.SelectOutput."
        )
    if output.is_complex() or output.dtype is torch.bool or output.layout is not torch.strided:
        raise TypeError(
            "forward_func must return a dense tensor of real numbers, got "
            f"{output.dtype}, {output.layout}."
        )
    if output.is_meta and not any(tensor.is_meta for tensor in inputs):
        raise TypeError("forward_func returned a tensor without values, on the device meta.")
    return output


def _missing_axes(forward_func: ForwardFunc, inputs: tuple[Tensor, ...]) -> str | None:
    """What to say of a pass that failed, if its inputs look like samples without a batch."""
    if not isinstance(forward_func, Module):
        return None
    kinds = {torch.nn.Conv1d: 3, torch.nn.Conv2d: 4, torch.nn.Conv3d: 5}
    needed = {dim for kind, dim in kinds.items() for m in forward_func.modules() if type(m) is kind}
    spatial = [tensor for tensor in inputs if tensor.is_floating_point() and tensor.dim() > 1]
    if len(needed) != 1 or not any(tensor.dim() == min(needed) - 1 for tensor in spatial):
        return None
    shapes = [tuple(tensor.shape[1:]) for tensor in spatial]
    return (
        f"The network failed for inputs of shape N x {shapes[0]}; its convolutions take "
        f"{min(needed)} dimensions, N x C x spatial. Give a single sample a batch dimension: "
        "inputs.unsqueeze(0)."
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
        with _taking(layer, attribute_to_layer_input, layer_call, begin_graph=False) as taken:
            run_forward(network, inputs, additional_forward_args)
            return _dequantized(taken())
    with torch.no_grad(), _watching(layer, attribute_to_layer_input):
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
) -> tuple[Tensor, Tensor]:
    """Gradients of the selected outputs with respect to the layer, and its activations.

    The graph begins at the layer: what runs before it stores nothing, and parameters get no
    gradient.

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

    Raises:
        ValueError: If the layer is never called, several times without a layer_call, does not have
            exactly one tensor, or the selected output does not depend on it.
        RuntimeError: If the forward or backward pass fails otherwise.
    """
    network, device_ids = eager(forward_func), _devices(forward_func, device_ids)
    if layer_call is not None or device_ids is None:
        return _gradients_of_call(
            network,
            layer,
            inputs,
            additional_forward_args,
            select,
            attribute_to_layer_input,
            layer_call,
        )

    # The replicas of DataParallel are gathered outside the layer's thread, where grad mode would
    # still be off; its graph covers the whole network, as Captum's always does.
    def selected(*args: Any) -> Tensor:
        with torch.enable_grad():
            return select(run_forward(network, args, ()))

    with _watching(layer, attribute_to_layer_input):
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
) -> tuple[Tensor, Tensor]:
    """The same without Captum, whose hooks see the passes of other threads, too."""
    gradients = None
    with _taking(layer, at_input, layer_call, begin_graph=True) as taken:
        output = run_forward(network, inputs, additional_forward_args)
        activations = taken()
        with torch.enable_grad():  # also where the network itself runs without gradients
            values = select(output)
        if values.requires_grad and _has_derivatives(values):
            ones = torch.ones_like(values)
            (gradients,) = torch.autograd.grad(values, activations, ones, allow_unused=True)
    if gradients is None:
        raise ValueError(_without_gradient(layer))
    return gradients, activations.detach()


def _has_derivatives(values: Tensor) -> bool:
    """Whether no operation on the way lacks a derivative, of which torch would only warn."""
    seen, waiting = set(), [values.grad_fn]
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

    The network runs as written, on one device.

    Args:
        forward_func (Callable): The network.
        layer (Module): The layer.
        inputs (tuple of Tensor): Inputs, N samples each.
        additional_forward_args (tuple): Passed on after the inputs.
        select (Callable): Turns the output into one value a sample (N).
        attribute_to_layer_input (bool): Whether the layer's input is meant. Default: False.
        layer_call (int, optional): Which call of the layer is meant, from 0. Default: None, its
            only one.

    Raises:
        ValueError: As :func:`layer_gradients_and_activations`.
    """
    network = on_one_device(forward_func)
    # Fused attention has no second derivative.
    with (
        sdpa_kernel(SDPBackend.MATH),
        _taking(layer, attribute_to_layer_input, layer_call, begin_graph=True) as taken,
    ):
        values = select(run_forward(network, inputs, additional_forward_args))
        activations = taken()
        gradients = None
        if values.requires_grad:
            (gradients,) = torch.autograd.grad(
                values.sum(), activations, create_graph=True, allow_unused=True
            )
        if gradients is None:
            raise ValueError(_without_gradient(layer))
        products = None
        if gradients.requires_grad:
            (products,) = torch.autograd.grad(
                gradients, activations, activations.detach(), allow_unused=True
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
            ones = torch.ones_like(values)
            (gradients,) = torch.autograd.grad(values, leaf, ones, allow_unused=True)
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
    tensor = tensor.detach()
    return tensor.dequantize() if tensor.is_quantized else tensor


def _without_gradient(layer: Module) -> str:
    return (
        f"The output has no gradient with respect to the layer {_name(layer)}: the output does not "
        "depend on it, or the network computes it without gradients, as quantised ones do, and "
        "checkpoints with use_reentrant=True. Choose a layer on the way to the output, or what "
        "needs no gradients: GroupCAM with gradient_free=True, ScoreCAM or RISE."
    )


def _name(layer: Module) -> str:
    return type(layer).__name__


def _only_tensor(layer: Module, value: Any, at_input: bool) -> Tensor:
    values = value if isinstance(value, (tuple, list)) else (value,)
    if len(values) != 1 or not isinstance(values[0], Tensor):
        found = ", ".join(type(v).__name__ for v in values) or "nothing"
        raise ValueError(
            f"Expected the {'input' if at_input else 'output'} of the layer {_name(layer)} to be "
            f"one tensor, got {found}. Choose a layer inside it, or beside it, that has one."
        )
    return values[0]


@contextmanager
def _hooked(
    layer: Module, at_input: bool, hook: Callable[..., Any], *, replicas: bool = False
) -> Iterator[None]:
    """Calls a hook with what the layer takes or gives, in a network that runs as written."""
    # Passes of other threads are none of it, unless they are those of replicas.
    if not isinstance(layer, Module):
        raise TypeError(
            f"layer must be a torch.nn.Module of the network, got {type(layer).__name__}."
        )
    if isinstance(layer, torch.jit.ScriptModule):
        raise ValueError(
            f"The layer is a {type(layer).__name__} of TorchScript, which cannot be watched. "
            "Explain the network that it was made of, or choose a layer outside; RISE needs none."
        )
    register = layer.register_forward_pre_hook if at_input else layer.register_forward_hook
    thread = threading.get_ident()

    def of_this_thread(*given: Any) -> Any:
        return hook(*given) if replicas or threading.get_ident() == thread else None

    handle = register(of_this_thread)
    try:
        with uncompiled():
            yield
    finally:
        handle.remove()


@contextmanager
def replacing(
    layer: Module,
    replace: Callable[[Tensor], Tensor],
    *,
    attribute_to_layer_input: bool = False,
    layer_call: int | None = None,
) -> Iterator[None]:
    """What runs inside sees something else instead of what the layer gives (or gets).

    Args:
        layer (Module): The layer.
        replace (Callable): Gets the tensor, returns another of its shape.
        attribute_to_layer_input (bool): Whether the layer's input is replaced. Default: False.
        layer_call (int, optional): Which call of the layer is meant, from 0. Default: None, each.
    """
    calls = 0

    def put(_module: Module, args: Any, output: Any = None) -> Any:
        nonlocal calls
        number, calls = calls, calls + 1
        if layer_call not in {None, number}:
            return None
        whole = args if attribute_to_layer_input else output
        other = replace(_only_tensor(layer, whole, attribute_to_layer_input))
        return type(whole)((other,)) if isinstance(whole, (tuple, list)) else other

    with _hooked(layer, attribute_to_layer_input, put):
        yield


@contextmanager
def _watching(layer: Module, at_input: bool) -> Iterator[None]:
    """Explains Captum's errors where it watches the replicas of a layer."""

    def watch(_module: Module, args: Any, output: Any = None) -> None:
        _only_tensor(layer, args if at_input else output, at_input)

    try:
        # Registered before Captum's own hook, hence run before it.
        with _hooked(layer, at_input, watch, replicas=True):
            yield
    except AssertionError as error:
        if "did not obtain any outputs" not in str(error):  # not Captum's, the network's own
            raise
        raise ValueError(_never_called(layer)) from error


@contextmanager
def _taking(
    layer: Module, at_input: bool, layer_call: int | None, *, begin_graph: bool
) -> Iterator[Callable[[], Tensor]]:
    # Yields what gives the tensor, once the forward pass is done; None is the only call.
    calls = 0
    found: list[Tensor] = []

    def take(_module: Module, args: Any, output: Any = None) -> Any:
        nonlocal calls
        number, calls = calls, calls + 1
        if number != (layer_call or 0):
            return None
        whole = args if at_input else output
        value = _only_tensor(layer, whole, at_input).detach()
        if not (begin_graph and value.is_floating_point()):
            found.append(value.clone())  # layers after it may work in place
            return None
        found.append(value.requires_grad_())
        torch.set_grad_enabled(True)
        fresh = value.clone()  # layers that work in place must not meet a leaf
        return type(whole)([fresh]) if isinstance(whole, (tuple, list)) else fresh

    def taken() -> Tensor:
        if not calls:
            raise ValueError(_never_called(layer))
        if calls > 1 and layer_call is None:
            raise ValueError(_several_calls(layer, calls))
        if found:
            return found[0]
        raise ValueError(
            f"The layer {_name(layer)} runs {calls} times in one pass of the network: layer_call "
            f"must be from 0 to {calls - 1}, got {layer_call}."
        )

    with torch.no_grad(), _hooked(layer, at_input, take):
        yield taken


def _several_calls(layer: Module, calls: int) -> str:
    return (
        f"The layer {_name(layer)} runs {calls} times in one pass of the network: say "
        f"which call is meant, layer_call=0 to {calls - 1}. Where each input has its own "
        "call, give a tuple with that of each: layer_call=(0, 1)."
    )


def _never_called(layer: Module) -> str:
    return (
        f"The layer {_name(layer)} was not called in the forward pass. Choose a module that "
        "belongs to the network behind forward_func and that its forward calls. An exported or "
        "traced network calls none: explain the one that it was made of, or what "
        "torch.export.unflatten gives; RISE needs no layer."
    )
