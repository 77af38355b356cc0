"""Places that targets, boxes and regions name, which stay where they are in a mirrored input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_groupcam import _captum, _compiled
from captum_groupcam.attr.functional.smoothed import lies_over
from captum_groupcam.networks.outputs import BoxScore, RegionMean
from captum_groupcam.threads import reached_modules

__all__ = ["check_no_places"]

_SCORE = (
    "Reduce it to a score that names no place first, N x classes, as RegionMean of "
    "captum_groupcam.networks does with the region among the inputs"
)


def check_no_places(
    forward_func: _captum.ForwardFunc,
    inputs: tuple[Tensor, ...],
    targets: list[Any],
    arguments: Callable[[], tuple[Any, ...]] = tuple,
    *,
    instead: str = "flip=False",
) -> None:
    """Refuses targets and networks that name a place, which is not mirrored with the input.

    One sample runs, and the shape of the output tells whether targets may name places.

    Args:
        forward_func (Callable): The network or any modification of its forward function.
        inputs (tuple of Tensor): Inputs, N x ... each.
        targets (list): Targets in any of Captum's forms.
        arguments (Callable, optional): Gives the additional arguments of a single sample.
            Default: there are none.
        instead (str, optional): The option that mirrors nothing. Default: "flip=False".

    Raises:
        ValueError: If a target is a tuple of several indices; if the output has more dimensions
            than N x classes, or one value for each position of an input; or if the network asks
            about a box, or about a region that is not mirrored.
    """
    modules = reached_modules(forward_func)
    sizes = {one.shape[2:] for one in inputs if one.is_floating_point() and one.dim() > 2}
    if any(isinstance(module, BoxScore) for module in modules):
        raise ValueError(
            "The network is a BoxScore, and its boxes are not mirrored with the input: give "
            f"{instead}."
        )
    others = [one for one in inputs if not one.is_floating_point() or one.dim() < 3]
    mirrored = len(inputs) > 1 and all(lies_over(one, sizes) for one in others)
    if not mirrored and any(isinstance(module, RegionMean) for module in modules):
        raise ValueError(
            "The network is a RegionMean, and its regions are not mirrored with the input. Give "
            "them among the inputs, as in attribute((image, regions)), in the image's height and "
            f"width; or {instead}."
        )
    for target in targets:
        for one in target if isinstance(target, list) else [target]:
            if isinstance(one, tuple) and len(one) > 1:
                raise ValueError(
                    f"The target {one} names a place in the output, which is not mirrored with the "
                    f"input. {_SCORE}; or give {instead}."
                )
    output = _output(forward_func, tuple(one[:1] for one in inputs), arguments)
    if output is None or output.dim() < 2 or output[:1].numel() == 1:
        return
    if output.dim() > 2 or output.shape[1] in {size.numel() for size in sizes}:
        raise ValueError(
            f"An output of shape {tuple(output.shape)} has places, and the one that a target names "
            f"is not mirrored with the input. {_SCORE}; or give {instead}."
        )


def _output(
    forward_func: _captum.ForwardFunc,
    row: tuple[Tensor, ...],
    arguments: Callable[[], tuple[Any, ...]],
) -> Tensor | None:
    """What the network gives for one sample; None where it fails or gives no tensor."""
    network = _compiled.on_one_device(forward_func)
    with torch.no_grad(), _compiled.uncompiled():
        try:
            output = network(*(one.clone() for one in row), *arguments())
        except Exception:  # the call itself will say what is wrong
            return None
    return output if isinstance(output, Tensor) else None
