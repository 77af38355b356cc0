"""What inputs and activations have to be, and what an error says of those that are not."""

from __future__ import annotations

from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.networks.tensors import check_samples

__all__ = [
    "check_activations",
    "check_channels_first",
    "check_grid",
    "check_input",
    "is_spatial",
]


def check_input(position: int, tensor: Tensor, first: Tensor) -> None:
    """Refuses what is not a tensor of as many samples as the first input has."""
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"inputs must be a tensor or a tuple of tensors, got {type(tensor).__name__}."
        )
    check_samples(f"Input {position}", tensor)
    if tensor.shape[0] != first.shape[0]:
        raise ValueError(
            f"Input {position} has {tensor.shape[0]} samples, the first has {first.shape[0]}."
        )


def is_spatial(tensor: Tensor) -> bool:
    """Whether an input has positions, N x C x spatial.

    Args:
        tensor (Tensor): The input, N x ...

    Returns:
        bool: Whether it has one to three spatial dimensions, and floating-point values.

    Examples::

        >>> import torch
        >>> is_spatial(torch.zeros(2, 3, 8, 8)), is_spatial(torch.zeros(2, 3))
        (True, False)
    """
    return tensor.is_floating_point() and 3 <= tensor.dim() <= 5


def check_activations(activations: Tensor, inputs: tuple[Tensor, ...], *, masked: bool) -> None:
    """Refuses activations without the dimensions of the inputs, which their masks need."""
    (needed,) = {whole.dim() for whole in inputs if is_spatial(whole)}
    # Fewer could be tokens, N x T x C, whose positions would be taken for channels.
    if not needed <= activations.dim() <= (needed if masked else 5):
        least = "" if masked else "at least "
        raise ValueError(
            f"The layer's activations have the shape {tuple(activations.shape)}; for these "
            f"inputs they need {least}{needed - 2} spatial dimensions, N x K x spatial. Choose "
            "a layer before the spatial dimensions are gone, or give a reshape_transform that "
            "restores them."
        )
    if not activations.isfinite().all():
        raise ValueError("The layer's activations contain NaN or infinite values.")
    if activations.dim() == needed:
        check_grid(activations, inputs)
    if masked and activations.dim() == needed:
        check_channels_first(activations, inputs)


def check_grid(activations: Tensor, inputs: tuple[Tensor, ...]) -> None:
    """Refuses N x spatial x K at a layer, where the input's sides say that the channels come last.

    Args:
        activations (Tensor): N x K x spatial, on the layer's grid; with K = 1 it may be a map.
        inputs (tuple of Tensor): The inputs, N x C x spatial each.

    Raises:
        ValueError: If the grid is far from the input's sides, by its last axis, and fits with the
            channels last.

    Warns:
        UserWarning: If it is as likely that channels come last.

    Examples::

        >>> import torch
        >>> check_grid(torch.zeros(1, 768, 3, 3), (torch.zeros(1, 3, 96, 96),))
        >>> check_grid(torch.zeros(1, 3, 3, 768), (torch.zeros(1, 3, 96, 96),))
        Traceback (most recent call last):
        ValueError: The layer's activations have the shape (1, 3, 3, 768), for an input of ...
    """
    if activations.dim() < 4:
        return
    for whole in inputs:
        if whole.dim() != activations.dim() or not whole.is_floating_point():
            continue
        sides = whole.shape[2:]
        first, last = (
            [side / cells for side, cells in zip(sides, grid, strict=True)]
            for grid in (activations.shape[2:], activations.shape[1:-1])
        )
        away = max(first) / first[-1]
        # The channels of a map are gone; a clip's frames are apart from its sides.
        high, wide = last[-2:]
        uneven = max(high, wide) / min(high, wide)
        fits = uneven <= 2 if activations.shape[1] > 1 else first[-1] < 1
        said = (
            f"The layer's activations have the shape {tuple(activations.shape)}, for an input of "
            f"{' x '.join(map(str, sides))}: their channels seem to come last. Expected N x K x "
            "spatial: give reshape_transform=captum_groupcam.networks.channels_first"
        )
        if min(first) == first[-1] and away > 8 and fits:
            raise ValueError(f"{said}, or choose another layer.")
        if min(first) == first[-1] and away > 1.5 and activations.shape[1] > 1 and uneven <= 1.05:
            _captum.warn(f"{said} if they do; then the map is wrong without it.")


def check_channels_first(activations: Tensor, inputs: tuple[Tensor, ...]) -> None:
    """Refuses N x spatial x C, where the layer's grid says that the channels come last.

    Args:
        activations (Tensor): N x K x spatial, on the layer's grid.
        inputs (tuple of Tensor): The inputs, N x C x spatial each.

    Raises:
        ValueError: If the grid fits the inputs only with their channels last.

    Examples::

        >>> import torch
        >>> check_channels_first(torch.zeros(2, 8, 16, 24), (torch.zeros(2, 3, 32, 48),))
        >>> check_channels_first(torch.zeros(2, 8, 16, 24), (torch.zeros(2, 32, 48, 3),))
        Traceback (most recent call last):
        ValueError: An input of shape (2, 32, 48, 3) for a layer of (16, 24) positions looks ...
    """
    grid = activations.shape[2:]
    for whole in inputs:
        if whole.dim() != activations.dim() or whole.shape[-1] > 4:
            continue
        first, last = (
            [side / cells for side, cells in zip(sides, grid, strict=True)]
            for sides in (whole.shape[2:], whole.shape[1:-1])
        )
        # A patch of a sane layer is about as high as wide.
        if max(last) <= 2 * min(last) and max(first) > 8 * min(first):
            raise ValueError(
                f"An input of shape {tuple(whole.shape)} for a layer of {tuple(grid)} "
                "positions looks as if its channels came last. Expected N x C x spatial: wrap "
                "the network so that it takes its channels first, and permute the input."
            )
