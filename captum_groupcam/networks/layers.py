"""Which layer to explain."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module

from captum_groupcam.networks._evidence import Probe
from captum_groupcam.networks._layouts import forms
from captum_groupcam.networks._locator import Locator, grids
from captum_groupcam.networks._messages import sizes
from captum_groupcam.networks._search import Search
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.tensors import check_tensor
from captum_groupcam.networks.trace import Place
from captum_groupcam.networks.transformers import ReshapeTransform
from captum_groupcam.threads import exclusive

__all__ = ["find_layer", "find_reshape_transform"]


@exclusive(draws=True)
def find_layer(model: Module, inputs: Tensor | tuple[Tensor, ...]) -> TargetLayer:
    """Finds the last layer that still knows where in the input something is.

    It is the last one, in execution order, of which the network confirms that

    - the output depends on it, at every position of its grid;
    - each position lies over the part of the input that it depends on, along every axis;
    - nothing else leads from the input to the output past it, but for a class token and its like.

    In a convolutional network that is usually the last block. If a block and its last child give
    the same output, it is the block. A module that runs several times in one pass has several
    candidates, and none is chosen: if one of them would do and comes later, an error says how to
    name its call. If the module that makes the output is called several times (a
    shared ReLU), it is the input of the module that takes it, usually the pooling. Class maps that
    are pooled straight into the output are passed over if there is anything else: each class looks
    at one channel of them, so there is nothing to group.

    In a transformer, where the class token is the output, it is the first norm of the last block:
    after its attention no other token counts. Where tokens are averaged it is the last norm or
    block. Linear layers, also those with an adapter around them, are passed over if there is
    anything else. The transform that gives the tokens their positions comes with the layer, and is
    made for the size of these inputs.

    It takes about six forward passes of the first sample in a convolutional network, 20 in most
    transformers and mixers, more where many layers see nearly all of the input; one of them has a
    graph, through which one to three go back. The network is in evaluation mode meanwhile; nothing
    of it is changed.

    Args:
        model (torch.nn.Module): A network for 1-D to 3-D inputs that gives one tensor; wrapped in
            :class:`~captum_groupcam.networks.outputs.SelectOutput` where it gives several, since
            what counts is whether the explained one depends on a layer.
        inputs (Tensor or tuple of Tensor): What the network takes; one sample is enough. The first
            floating-point input of shape N x C x spatial counts. If it is constant, some noise is
            added.

    Returns:
        TargetLayer: The layer's name, the layer, whether its input is meant, and what brings it to
        N x C x spatial.

    Raises:
        TypeError: If the output is not a tensor.
        ValueError: If no input or no layer has spatial dimensions; if no layer fits, or two of
            different grids lead to the output side by side, or a call of a module that runs several
            times comes later. The candidates are listed, each with
            what speaks against it.

    Warns:
        UserWarning: If the layer does not depend on one of several inputs of this shape.

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
    probe = Probe(model, first_sample(inputs))
    try:
        return Search(probe).layer()
    finally:
        probe.forget()


@exclusive(draws=True)
def find_reshape_transform(
    model: Module,
    layer: Module,
    inputs: Tensor | tuple[Tensor, ...],
    *,
    attribute_to_layer_input: bool = False,
) -> ReshapeTransform | None:
    """Finds what brings the activations of a chosen layer to N x C x spatial.

    It is the arrangement by which each position lies over the part of the input that it depends on;
    grids that the network has had before come first. About six passes tell.

    Args:
        model (torch.nn.Module): The network, see :func:`find_layer`.
        layer (torch.nn.Module): A module of it.
        inputs (Tensor or tuple of Tensor): What the network takes; one sample is enough. The
            transform is made for their size.
        attribute_to_layer_input (bool, optional): Whether the layer's input is meant.
            Default: False.

    Returns:
        Callable or None: The transform. None if the activations have these dimensions already, or
        no positions, or the layer is not called: then a method on the layer says so.

    Raises:
        ValueError: If no input has spatial dimensions, or the layer's values lie on no grid over
            the parts of the input that they depend on, or on several.

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
    probe = Probe(model, first_sample(inputs))
    names = [name for name, module in probe.model.named_modules() if module is layer and name]
    if not names:
        return None
    place = Place(names[0], attribute_to_layer_input)
    value = probe.activations([place]).get(place)
    if value is None:
        return None
    admitted = forms(value.shape, probe.n_samples, len(probe.size))
    if not admitted:
        return None
    seen = list(grids(probe.shapes(), len(probe.size)))
    found = Locator(probe, seen).judge(place, value.shape, admitted)
    if found.layout is None:
        raise ValueError(
            f"{place} gives {sizes(value.shape)}: {found.problem}. Give a reshape_transform that "
            "turns it into N x C x spatial, if there is one, or choose another layer; "
            "captum_groupcam.networks.transformers has some."
        )
    return found.layout.transform


def first_sample(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The first sample of all inputs that have as many as the first of them."""
    whole = inputs if isinstance(inputs, tuple) else (inputs,)
    for position, tensor in enumerate(whole):
        check_tensor(f"Input {position}", tensor)
    whole = tuple(tensor.as_subclass(Tensor) for tensor in whole)
    counts = [tensor for tensor in whole if tensor.is_floating_point() and 3 <= tensor.dim() <= 5]
    if not counts:
        return whole
    n = len(counts[0])
    return tuple(tensor[:1] if tensor.dim() and len(tensor) == n else tensor for tensor in whole)
