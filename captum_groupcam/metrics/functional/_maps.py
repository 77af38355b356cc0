"""What every measure asks of a map."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_groupcam._captum import warn, without_class
from captum_groupcam.networks.tensors import check_tensor

__all__ = ["check_maps", "match_maps", "warn_if_constant"]


def check_maps(maps: Tensor, n_spatial: int) -> Tensor:
    """Brings maps to N x 1 x spatial.

    Args:
        maps (Tensor): N x 1 x spatial, or N x spatial.
        n_spatial (int): The number of spatial dimensions.

    Returns:
        Tensor: N x 1 x spatial, at least float32, without a graph.

    Raises:
        TypeError: If the maps are not a tensor.
        ValueError: If the shape is another one, there is no sample, or a value is NaN or infinite.
    """
    check_tensor("maps", maps)
    maps = without_class(maps.detach())
    checked = maps.unsqueeze(1) if maps.dim() == n_spatial + 1 else maps
    if checked.dim() != n_spatial + 2 or checked.shape[1] != 1 or checked.numel() == 0:
        raise ValueError(
            f"Expected maps of shape N x 1 x spatial or N x spatial with {n_spatial} spatial "
            f"dimensions, got {tuple(maps.shape)}. Reduce maps with several channels to one first."
        )
    finite = checked.isfinite().flatten(1).all(1)
    if not finite.all():
        raise ValueError(
            "The map contains NaN or infinite values in samples "
            f"{(~finite).nonzero().flatten().tolist()}."
        )
    return checked.to(torch.promote_types(checked.dtype, torch.float32))


def match_maps(maps: Tensor, inputs: Tensor) -> Tensor:
    """Brings maps to N x 1 x spatial, on the device of the inputs (N x C x spatial) they explain.

    Args:
        maps (Tensor): N x 1 x spatial, or N x spatial.
        inputs (Tensor): N x C x spatial.

    Returns:
        Tensor: N x 1 x spatial.

    Raises:
        TypeError: If the maps or the inputs are not a tensor.
        ValueError: As :func:`check_maps`, if number or spatial size differ from the inputs', or if
            the two fit each other only the other way round.
    """
    if not isinstance(inputs, Tensor):
        raise TypeError(
            f"inputs must be the one tensor that the maps explain, got {type(inputs).__name__}. "
            "Pass other inputs as additional_forward_args."
        )
    check_tensor("inputs", inputs)
    if isinstance(maps, Tensor) and _fit(inputs, maps) and not _fit(maps, inputs):
        raise ValueError(
            "maps and inputs are swapped: expected maps of shape N x 1 x spatial or N x spatial "
            f"first, then inputs of shape N x C x spatial; got {tuple(maps.shape)} and "
            f"{tuple(inputs.shape)}."
        )
    maps = check_maps(maps, inputs.dim() - 2)
    if maps.shape[0] != inputs.shape[0] or maps.shape[2:] != inputs.shape[2:]:
        raise ValueError(
            f"Expected a map of spatial size {tuple(inputs.shape[2:])} for each of "
            f"{inputs.shape[0]} inputs, got {tuple(maps.shape)}. Interpolate the maps first."
        )
    return maps.to(inputs.device)


def _fit(maps: Tensor, inputs: Tensor) -> bool:
    """Whether these can be maps of inputs, by their shapes and what inputs have to be."""
    shape = inputs.shape
    with_channel = maps.shape == (*shape[:1], 1, *shape[2:])
    without = maps.shape == (*shape[:1], *shape[2:])
    return inputs.is_floating_point() and len(shape) > 2 and (with_channel or without)


def warn_if_constant(maps: Tensor, consequence: str) -> None:
    """Warns of maps (N x 1 x spatial) that are the same everywhere."""
    flat = maps.flatten(1)
    constant = flat.amin(1) == flat.amax(1)
    if constant.any():
        warn(
            f"The map is constant in samples {constant.nonzero().flatten().tolist()}: {consequence}"
        )
