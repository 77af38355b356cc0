"""Which layer to explain."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.trace import Step, Trace, evaluating
from captum_groupcam.networks.transformers import (
    ReshapeTransform,
    channels_first,
    token_grid,
    tokens_to_grid,
)

__all__ = ["find_layer", "find_reshape_transform"]


def find_layer(model: Module, inputs: Tensor | tuple[Tensor, ...]) -> TargetLayer:
    """Finds the last layer that still knows where in the input something is.

    In a convolutional network it is the last module in execution order whose output has the
    dimensions of the input and more than one position. If a block and its last child give the same
    output, it is the block. If the module that makes the output is called several times (a shared
    ReLU), it is the input of the module that takes it, usually the pooling. Class maps that are
    pooled straight into the output are passed over if there is anything else: each class looks at
    one channel of them, so there is nothing to group.

    In a transformer it is the last module that gives tokens, or channels-last maps, all of whose
    positions reach the network's output. Where the class token is the output, that is the first
    norm of the last block: after its attention no other token counts. Where tokens are averaged it
    is the last norm or block. Linear layers are passed over, since a projection inside attention
    carries only a part of what the tokens say. The transform that gives them back their positions
    comes with the layer, and is made for the size of these inputs.

    The network runs once, in evaluation mode and without a graph, a transformer a second time
    forwards and backwards; nothing of it is changed.

    Args:
        model (torch.nn.Module): A network for 1-D to 3-D inputs.
        inputs (Tensor or tuple of Tensor): What the network takes; one sample is enough. The first
            floating-point input of shape N x C x spatial counts.

    Returns:
        TargetLayer: The layer's name, the layer, whether its input is meant, and what brings it to
        N x C x spatial.

    Raises:
        ValueError: If no input or no layer has spatial dimensions, or if the network computes on
            tokens or channels-last maps and the layer cannot be told.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(
        ...     nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()),
        ...     nn.AdaptiveAvgPool2d(1),
        ...     nn.Flatten(),
        ...     nn.Linear(8, 5),
        ... )
        >>> find_layer(net, torch.rand(1, 3, 16, 16)).name
        '0'
    """
    model, whole, size = _prepared(model, inputs)
    trace, output = _traced(model, whole, size)
    n_outputs = output.shape[1] if isinstance(output, Tensor) and output.dim() > 1 else None

    def is_class_map(index: int) -> bool:
        return trace.steps[index].shape[1] == n_outputs and trace.last_parameters <= index

    # What comes before any parameter, an image that is normalised or cropped, is no feature.
    begin = trace.first_parameters if trace.last_parameters >= 0 else len(trace.steps)
    latest_first = range(len(trace.steps) - 1, begin - 1, -1)
    for index in sorted(latest_first, key=is_class_map):
        step = trace.steps[index]
        layer = trace.layer(step)
        if layer is None or (trace.token_shapes and not _is_map(step, size)):
            continue
        if trace.last_tokens > index or step.shape in trace.token_shapes[-1:]:
            break
        return TargetLayer.of(model, layer[0], attribute_to_layer_input=layer[1])
    if not trace.token_shapes:
        raise ValueError(
            f"No layer of {type(model).__name__} has an output with {len(size)} spatial dimensions "
            f"and more than one position for an input of size {tuple(size)}. Class activation maps "
            "need a layer that keeps positions, as convolutional ones do."
        )
    found = _token_layer(model, whole, size, trace)
    if found is None:
        raise ValueError(
            f"{type(model).__name__} computes on tokens or channels-last maps, as a transformer "
            "does, and none of its layers gives tokens on a grid with the input's aspect ratio, "
            "all of which reach the output with gradients. Choose a layer, and give a "
            "reshape_transform that turns its output into N x C x spatial; "
            "captum_groupcam.networks.transformers has some."
        )
    return found


def find_reshape_transform(
    model: Module,
    layer: Module,
    inputs: Tensor | tuple[Tensor, ...],
    *,
    attribute_to_layer_input: bool = False,
) -> ReshapeTransform | None:
    """Finds what brings the activations of a chosen layer to N x C x spatial.

    Args:
        model (torch.nn.Module): The network, see :func:`find_layer`.
        layer (torch.nn.Module): A module of it.
        inputs (Tensor or tuple of Tensor): What the network takes; one sample is enough. The
            transform is made for their size.
        attribute_to_layer_input (bool, optional): Whether the layer's input is meant.
            Default: False.

    Returns:
        Callable or None: The transform. None if the activations have these dimensions already, or
        no positions that could be found: then a method on the layer says so.

    Raises:
        ValueError: If no input has spatial dimensions, or there are as many channels as positions
            along each axis and it cannot be told which is which.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> class Tokens(nn.Module):
        ...     def forward(self, maps):
        ...         return maps.flatten(2).transpose(1, 2)
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), Tokens(), nn.Linear(8, 5))
        >>> images = torch.rand(1, 3, 16, 24)
        >>> find_reshape_transform(net, net[1], images).keywords["grid"]
        (4, 6)
    """
    model, whole, size = _prepared(model, inputs)
    shapes: list[torch.Size] = []

    def watch(_module: Module, args: Any, output: Any = None) -> None:
        values = args if attribute_to_layer_input else (output,)
        shapes.extend(value.shape for value in values if isinstance(value, Tensor))

    register = (
        layer.register_forward_pre_hook if attribute_to_layer_input else layer.register_forward_hook
    )
    handle = register(watch)
    try:
        trace, _ = _traced(model, whole, size)
    finally:
        handle.remove()
    if not shapes or (len(shapes[-1]) > 3 and shapes[-1] not in trace.token_shapes):
        return None
    if len(shapes[-1]) > 3 and len(set(shapes[-1][1:])) == 1:
        raise ValueError(
            f"A layer of the shape {tuple(shapes[-1])} may have its channels first or last: give "
            "inputs of another size."
        )
    return _transform(shapes[-1], size, trace)


def _prepared(
    model: Module, inputs: Tensor | tuple[Tensor, ...]
) -> tuple[Module, tuple[Tensor, ...], torch.Size]:
    """The network that calls hooks, its inputs, and the spatial size of the one that counts."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            "The layers of a TorchScript network cannot be watched. Explain the network that it "
            "was made of; RISE needs no layer."
        )
    whole = inputs if isinstance(inputs, tuple) else (inputs,)
    for tensor in whole:
        if tensor.is_floating_point() and 3 <= tensor.dim() <= 5:
            return cast(Module, _captum.eager(model)), whole, tensor.shape[2:]
    raise ValueError(
        "Expected an input of shape N x C x spatial, floating point, with one to three spatial "
        f"dimensions; got {[(tuple(t.shape), t.dtype) for t in whole]}."
    )


def _traced(model: Module, inputs: tuple[Tensor, ...], size: torch.Size) -> tuple[Trace, Any]:
    """Runs the network: what it does with maps of the input's dimensions, and its output."""

    def is_map(shape: torch.Size) -> bool:
        return len(shape) == len(size) + 2 and shape[2:].numel() > 1

    trace = Trace(len(inputs[0]), is_map)
    with evaluating(model), torch.no_grad(), trace.watching(model):
        # Clones: in-place layers must not reach the caller's tensors, and tensors of
        # inference_mode have no version.
        output = model(*(tensor.detach().clone() for tensor in inputs))
    return trace, output


def _transform(shape: torch.Size, size: torch.Size, trace: Trace) -> ReshapeTransform | None:
    """What brings tokens or channels-last maps of a shape to N x C x spatial, if that can be told.

    Args:
        shape (torch.Size): N x T x C or N x spatial x C.
        size (torch.Size): Spatial size of the input.
        trace (Trace): Where the maps are found that the tokens were made of.

    Returns:
        Callable or None: The transform.
    """
    if len(shape) == len(size) + 2 and len(shape) > 3:
        return channels_first if _same_aspect(shape[1:-1], size) else None
    if len(shape) != 3 or shape[1] == 1:
        return None
    # Tokens of a signal look like maps themselves, but not what a module made before them.
    maps = trace.steps[: trace.first_tokens] if len(size) == 1 else trace.steps
    extents = [step.shape[2:] for step in reversed(maps) if _is_map(step, size)]
    for extent in [*extents, size]:
        with suppress(ValueError):
            grid = token_grid(shape[1], extent)
            n_prefix = shape[1] - math.prod(grid)
            return partial(tokens_to_grid, grid=grid, n_prefix=n_prefix)
    return None


def _is_map(step: Step, size: torch.Size) -> bool:
    """Whether it is a map also where there are tokens: not queries or keys in their heads."""
    return bool(step.givers) and _same_aspect(step.shape[2:], size)


def _same_aspect(grid: torch.Size, size: torch.Size) -> bool:
    """Whether one patch size, up to rounding of the grid, gives all sides of the input."""
    smallest = max(side / (n + 1) for n, side in zip(grid, size, strict=True))
    largest = min(side / (n - 1) if n > 1 else math.inf for n, side in zip(grid, size, strict=True))
    return smallest < largest and grid.numel() > 1


def _token_layer(
    model: Module, inputs: tuple[Tensor, ...], size: torch.Size, seen: Trace
) -> TargetLayer | None:
    """The last layer all of whose tokens (or channels-last positions) the output depends on."""
    transforms: dict[torch.Size, ReshapeTransform | None] = {}

    def is_tokens(shape: torch.Size) -> bool:
        if len(shape) != len(seen.token_shapes[-1]):
            return False
        if shape not in transforms:
            transforms[shape] = _transform(shape, size, seen)
        return transforms[shape] is not None

    trace = Trace(len(inputs[0]), is_tokens)
    with evaluating(model), torch.enable_grad(), trace.watching(model):
        leaves = [
            tensor.detach().clone().requires_grad_(tensor.is_floating_point()) for tensor in inputs
        ]
        output = model(*(leaf.clone() for leaf in leaves))
        if not isinstance(output, Tensor) or not output.requires_grad:
            return None
        # NaN times anything is NaN: it goes back to all that the output depends on, even by a
        # weight that is zero, as that of a new head often is.
        torch.autograd.grad(
            output,
            [leaf for leaf in leaves if leaf.requires_grad],
            torch.full_like(output, torch.nan),
            allow_unused=True,
        )
    for step in reversed(trace.steps):
        layer, transform = trace.layer(step), transforms[step.shape]
        if layer is None or transform is None or step.reached is None:
            continue
        module = model.get_submodule(layer[0])
        if transform(step.reached).all() and (layer[1] or not isinstance(module, torch.nn.Linear)):
            return TargetLayer(
                module,
                layer[0],
                attribute_to_layer_input=layer[1],
                reshape_transform=transform,
            )
    return None
