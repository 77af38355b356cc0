"""Whether the positions of a layer are those of the input, where shapes do not tell.

A shape admits several readings: 48 tokens are a grid of 6 x 8 or of 8 x 6, N x 50 x 64 may be 50
tokens or 64 positions. Only then the network is asked, by a few passes of the first sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum
from captum_groupcam.networks._channels import may_come_last, surely_come_first
from captum_groupcam.networks._following import (
    axes_that_follow,
    grid_that_follows,
    inputs_that_lie_elsewhere,
    is_doubtful,
    order_that_follows,
)
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.transformers import FoundGrid, channels_first

__all__ = ["check_places", "warn_of_inputs_elsewhere"]


def check_places(
    shape: tuple[int, ...],
    inputs: tuple[Tensor, ...],
    which: int,
    look: Callable[[tuple[Tensor, ...]], Tensor],
    layer: TargetLayer,
    *,
    masked: bool,
    network: Callable[[], Iterable[Module]] = tuple,
) -> None:
    """Refuses a layer whose positions lie otherwise than its shape is read.

    Args:
        shape (tuple of int): Of the activations on the layer's grid, N x K x spatial.
        inputs (tuple of Tensor): One sample of what the network takes, 1 x C x spatial each.
        which (int): The place of the input whose positions count.
        look (Callable): Gives the layer for inputs, on its grid.
        layer (TargetLayer): The layer.
        masked (bool): Whether the input is seen through masks, so that its axes matter, too.
        network (Callable, optional): Gives the modules of the network. Default: none are known.

    Raises:
        ValueError: If the positions follow the input in another arrangement.

    Warns:
        UserWarning: If the grid is doubtful, and the network does not tell.

    Examples::

        >>> import torch
        >>> layer = TargetLayer(torch.nn.Linear(4, 8))
        >>> def tokens(inputs):  # 1 x 4 x 16 to 1 x 16 x 8
        ...     return layer.module(inputs[0].mT)
        >>> check_places((1, 16, 8), (torch.rand(1, 4, 16),), 0, tokens, layer, masked=False)
        Traceback (most recent call last):
        ValueError: The layer's activations have the shape (1, 16, 8), for an input of ...
    """
    size = tuple(inputs[which].shape[2:])
    grid = shape[2:]
    if len(grid) != len(size) or isinstance(layer.reshape_transform, FoundGrid):
        return
    sure = surely_come_first(
        layer.module, shape, at_input=layer.attribute_to_layer_input, network=network
    )
    if len(size) == 1:
        if not sure:
            _check_signal(shape, inputs, which, look, masked=masked)
        return
    as_it_is = layer.reshape_transform is None
    if as_it_is and not sure and may_come_last(layer.module, shape, network):
        _check_order(shape, inputs, which, look)
    chosen = layer.reshape_transform not in (None, channels_first)
    if not is_doubtful(grid, size, chosen=chosen):
        return
    found = grid_that_follows(inputs, which, look, chosen=chosen)
    about = (
        f"The layer has a grid of {_text(grid)} for an input of {_text(size)}"
        f"{', by its reshape_transform' if chosen else ''}"
    )
    instead = (
        "Give the reshape_transform that captum_groupcam.networks.find_reshape_transform(model, "
        "layer, inputs) finds for inputs of this size"
    )
    if found.other is not None and chosen:
        raise ValueError(
            f"{about}, but its positions follow the input as one of {_text(found.other)} does. "
            f"{instead}."
        )
    if found.other is not None:
        raise ValueError(
            f"{about}, and its rows follow the columns of the input: the network turns it. Give a "
            "reshape_transform that turns the layer back, such as lambda maps: "
            "maps.transpose(-1, -2), or turn the input instead."
        )
    if found.unclear and chosen:
        _captum.warn(
            f"{about}, whose patches are not square, and its positions do not show that they lie "
            f"so: the map may be wrong. {instead}, or ask captum_groupcam.networks.check_layer."
        )


def warn_of_inputs_elsewhere(
    inputs: tuple[Tensor, ...],
    asked: Sequence[int],
    look: Callable[[tuple[Tensor, ...]], Tensor],
    layer: TargetLayer,
) -> None:
    """Warns of inputs that do not lie over the layer, as another does.

    Args:
        inputs (tuple of Tensor): One sample of what the network takes, 1 x C x spatial each.
        asked (sequence of int): Places of the inputs that are explained.
        look (Callable): Gives the layer for inputs, on its grid.
        layer (TargetLayer): The layer.

    Warns:
        UserWarning: If the layer's positions follow one of the inputs, but not another.

    Examples::

        >>> import torch
        >>> pair = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
        >>> layer = TargetLayer(torch.nn.Identity())
        >>> warn_of_inputs_elsewhere(pair, [0, 1], lambda pair: pair[0] + pair[1], layer)
    """
    elsewhere = inputs_that_lie_elsewhere(inputs, asked, look)
    if elsewhere:
        which = f"input{'s' if len(elsewhere) > 1 else ''} {' and '.join(map(str, elsewhere))}"
        _captum.warn(
            f"The positions of the layer {layer} do not lie where those of {which} are, as where "
            "an image is averaged and scales the channels of another: its map says nothing of "
            "where. Pass it as additional_forward_args."
        )


def _check_order(
    shape: tuple[int, ...],
    inputs: tuple[Tensor, ...],
    which: int,
    look: Callable[[tuple[Tensor, ...]], Tensor],
) -> None:
    if min(shape[1:]) < 2:
        return
    if order_that_follows(inputs, which, look).other is not None:
        raise ValueError(
            f"The layer's activations have the shape {shape}, for an input of "
            f"{_text(inputs[which].shape[2:])}, and the positions come before the channels. "
            "Expected N x K x spatial: give "
            "reshape_transform=captum_groupcam.networks.channels_first, or choose another layer."
        )


def _check_signal(
    shape: tuple[int, ...],
    inputs: tuple[Tensor, ...],
    which: int,
    look: Callable[[tuple[Tensor, ...]], Tensor],
    *,
    masked: bool,
) -> None:
    if min(shape[1:]) < 2 or inputs[which].numel() < 2:
        return
    found = axes_that_follow(inputs, which, look)
    if found.other is None:
        return
    layer_axis, input_axis = found.other
    given = tuple(inputs[which].shape[1:])
    what = f"The layer's activations have the shape {shape}, for an input of N x {_text(given)}"
    if layer_axis == 1:
        raise ValueError(
            f"{what}: the {shape[1]} positions come before the channels, as those of tokens do. "
            "Give the reshape_transform that captum_groupcam.networks.find_reshape_transform("
            "model, layer, inputs) finds, or, where every token is a position, "
            "captum_groupcam.networks.channels_first."
        )
    if masked:
        raise ValueError(
            f"{what}: the layer follows axis {input_axis} of the input, whose positions come "
            "before its channels, N x L x C. Expected N x C x L: put a module around the network "
            "whose forward takes that and gives inputs.transpose(1, 2) to it, and transpose the "
            "input."
        )


def _text(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))
