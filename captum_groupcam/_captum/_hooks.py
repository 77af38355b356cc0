"""Hooks for the time of a pass: what a layer takes or gives is seen, taken or replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import Module

from captum_groupcam._captum._calls import without_class
from captum_groupcam._compiled import uncompiled

__all__ = ["NotStoredError", "check_outside", "name_of", "replacing", "taking", "watching"]


class NotStoredError(Exception):
    """A derivative asks for what ran before the tensor was taken, and stored nothing."""


def name_of(layer: Module) -> str:
    return type(layer).__name__


def check_outside(layer: Module, tensor: Tensor) -> None:
    """Refuses what a layer takes or gives inside of a transform of torch.func.

    Raises:
        ValueError: If the tensor is one of vmap, which has no samples, or of another transform.
    """
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise ValueError(
            f"The layer {name_of(layer)} runs inside of a transform of torch.func, such as vmap, "
            "which hides the samples from it. Choose a layer outside of the transform, or call the "
            "module with all samples at once, as batches are; RISE needs no layer."
        )


def _only_tensor(layer: Module, value: Any, at_input: bool) -> Tensor:
    values = value if isinstance(value, (tuple, list)) else (value,)
    if len(values) != 1 or not isinstance(values[0], Tensor):
        found = ", ".join(type(v).__name__ for v in values) or "nothing"
        raise ValueError(
            f"Expected the {'input' if at_input else 'output'} of the layer {name_of(layer)} to be "
            f"one tensor, got {found}. Choose a layer inside it, or beside it, that has one."
        )
    check_outside(layer, values[0])
    if values[0].is_complex():
        raise ValueError(
            f"The {'input' if at_input else 'output'} of the layer {name_of(layer)} is complex, "
            f"{values[0].dtype}, as what a Fourier transform gives; a map needs real activations. "
            "Choose another layer."
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
            + (f" Give network.get_submodule({layer!r})." if isinstance(layer, str) else "")
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
        tensor = _only_tensor(layer, whole, attribute_to_layer_input)
        other = replace(tensor)
        if not (attribute_to_layer_input or tensor._is_view() or _is_own(tensor, layer)):
            with suppress(RuntimeError):  # an expanded one
                tensor.copy_(other)  # all that have it, as shortcuts do, see the other
                return None
        return type(whole)((other,)) if isinstance(whole, (tuple, list)) else other

    with _hooked(layer, attribute_to_layer_input, put):
        yield


@contextmanager
def watching(layer: Module, at_input: bool) -> Iterator[None]:
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


class Taken:
    """What a layer gives (or gets) in one of its calls, once the forward pass is done.

    Attributes:
        calls (int): How often the layer has run so far.
        inside (Tensor, optional): What the layer itself gets, where it gets a copy of its input.
        stores (bool): Whether operations store what their derivatives need.
    """

    def __init__(self, layer: Module, layer_call: int | None) -> None:
        self.calls = 0
        self.inside: Tensor | None = None
        self.stores = False
        self._layer, self._layer_call = layer, layer_call
        self._found: list[tuple[Tensor, Tensor | GradientEdge]] = []

    def is_meant(self) -> bool:
        """Counts a call, and says whether it is the one; without a number it is the only one."""
        self.calls += 1
        return self.calls - 1 == (self._layer_call or 0)

    def keep(self, value: Tensor, place: Tensor | GradientEdge | None = None) -> None:
        """Keeps the tensor's values, and where in the graph it is."""
        value = without_class(value.detach()).clone()  # layers after it may work in place
        self._found.append((value, value if place is None else place))

    @property
    def value(self) -> Tensor:
        """The tensor."""
        return self._one()[0]

    @property
    def place(self) -> Tensor | GradientEdge:
        """What gradients are taken with respect to."""
        return self._one()[1]

    def _one(self) -> tuple[Tensor, Tensor | GradientEdge]:
        layer, calls = self._layer, self.calls
        if not calls:
            raise ValueError(_never_called(layer))
        if calls > 1 and self._layer_call is None:
            raise ValueError(_several_calls(layer, calls))
        if self._found:
            return self._found[0]
        raise ValueError(
            f"The layer {name_of(layer)} runs {calls} times in one pass of the network: layer_call "
            f"must be from 0 to {calls - 1}, got {self._layer_call}."
        )


@contextmanager
def taking(
    layer: Module,
    at_input: bool,
    layer_call: int | None,
    *,
    begin_graph: bool,
    stores_all: bool = True,
    apart: bool = False,
) -> Iterator[Taken]:
    """Takes what a layer gives (or gets), with its place in the graph if one is to begin.

    The network gets the very tensor, for it may also go elsewhere: to a shortcut whose variable the
    layer has changed in place, or to a hook that keeps it.

    Args:
        layer (Module): The layer.
        at_input (bool): Whether its input is meant.
        layer_call (int, optional): Which call of the layer is meant, from 0; None, its only one.
        begin_graph (bool): Whether there is a graph.
        stores_all (bool): Whether all operations store what their derivatives need; otherwise those
            that run before the tensor is taken do not. They are asked for it only where the tensor
            went elsewhere before, as the input of a layer may. Default: True.
        apart (bool): Whether the layer gets a copy of its input, which tells its way from others.
            Default: False.

    Yields:
        Taken: Complete once the forward pass is done.

    Raises:
        NotStoredError: If a derivative needs what is not stored.
    """
    taken = Taken(layer, layer_call)

    def take(_module: Module, args: Any, output: Any = None) -> Any:
        if not taken.is_meant():
            return None
        whole = args if at_input else output
        tensor = _only_tensor(layer, whole, at_input)
        if not (begin_graph and tensor.is_floating_point()):
            taken.keep(tensor)
            return None
        taken.stores = True
        torch.set_grad_enabled(True)  # also where the network itself runs without gradients
        given = tensor if tensor.requires_grad else _with_graph(tensor, layer)
        # Noted before the tensor changes in place. Inference mode, in the network, has no graph.
        taken.keep(given, get_gradient_edge(given) if given.requires_grad else None)
        if apart:
            given = taken.inside = given.clone()
        if given is tensor:
            return None
        return type(whole)([given]) if isinstance(whole, (tuple, list)) else given

    stored = nullcontext() if stores_all or not begin_graph else _stored_when(taken)
    with torch.set_grad_enabled(begin_graph), stored, _hooked(layer, at_input, take):
        yield taken


def _is_own(tensor: Tensor, layer: Module) -> bool:
    """Whether a tensor is a parameter or buffer of a layer."""
    return any(tensor is one for one in (*layer.parameters(), *layer.buffers()))


def _with_graph(tensor: Tensor, layer: Module) -> Tensor:
    """A tensor that no gradients lead to as one in a graph, the same wherever that can be."""
    if not _is_own(tensor, layer):
        # In place, so that all that have it have it with its graph.
        with suppress(RuntimeError):  # a view that was made without gradients, or an expanded one
            return tensor.add_(torch.zeros_like(tensor[:0].sum()).requires_grad_())
    # Layers that work in place must not meet a leaf.
    return tensor.detach().requires_grad_().clone()


@contextmanager
def _stored_when(taken: Taken) -> Iterator[None]:
    """Operations store what their derivatives need only once the tensor is taken."""

    def pack(tensor: Tensor) -> tuple[Tensor, int] | None:
        return (tensor, tensor._version) if taken.stores else None

    def unpack(packed: tuple[Tensor, int] | None) -> Tensor:
        if packed is None:
            raise NotStoredError
        tensor, version = packed
        if tensor._version != version:  # torch itself checks it where nobody packs
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                "inplace operation"
            )
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def _several_calls(layer: Module, calls: int) -> str:
    return (
        f"The layer {name_of(layer)} runs {calls} times in one pass of the network: say "
        f"which call is meant, layer_call=0 to {calls - 1}. Where each input has its own "
        "call, give a tuple with that of each: layer_call=(0, 1)."
    )


def _never_called(layer: Module) -> str:
    return (
        f"The layer {name_of(layer)} was not called in the forward pass. Choose a module that "
        "belongs to the network behind forward_func and that its forward calls. An exported or "
        "traced network calls none: explain the one that it was made of, or what "
        "torch.export.unflatten gives; RISE needs no layer."
    )
