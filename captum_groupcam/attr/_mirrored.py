"""Inputs that are mirrored, and what would stay where it is meanwhile: places and other tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_groupcam import _captum, _compiled
from captum_groupcam.masking.call import Call
from captum_groupcam.masking.network import Shared
from captum_groupcam.networks.outputs import BoxScore, RegionMean
from captum_groupcam.threads import reached_modules

__all__ = [
    "can_be_mirrored",
    "check_no_places",
    "check_nothing_lies_over",
    "has_positions",
    "mirrored",
    "output_shape",
]

_SCORE = (
    "Reduce it to a score that names no place first, N x classes, as RegionMean of "
    "captum_groupcam.networks does with the region among the inputs"
)


def mirrored(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Mirrors inputs along the last axis.

    Args:
        inputs (tuple of Tensor): N x ... each. Those with floating-point values on positions are
            mirrored, as are those that lie over them; others stay.

    Returns:
        tuple of Tensor: Inputs of the same shapes.

    Examples::

        >>> mirrored((torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[True, False]]])))
        (tensor([[[2., 1.]]]), tensor([[[False,  True]]]))
    """
    sizes = sizes_of(inputs)
    return tuple(
        one.flip(-1) if has_positions(one) or lies_over(one, sizes) else one for one in inputs
    )


def has_positions(tensor: Tensor) -> bool:
    """Whether an input has floating-point values on positions: N x C x spatial."""
    return tensor.is_floating_point() and tensor.dim() > 2


def sizes_of(inputs: tuple[Tensor, ...]) -> set[torch.Size]:
    """The spatial sizes of the inputs that have positions."""
    return {one.shape[2:] for one in inputs if has_positions(one)}


def lies_over(tensor: Tensor | np.ndarray, sizes: Collection[torch.Size]) -> bool:
    """Whether a tensor has the positions of an input as its last axes, as a mask of it has.

    Args:
        tensor (Tensor or numpy.ndarray): Of any shape, N x ... as a rule.
        sizes (collection of torch.Size): The spatial sizes of the inputs.

    Returns:
        bool: Whether it has those of one of them, behind at least one other axis.

    Examples::

        >>> lies_over(torch.zeros(2, 8, 6), {torch.Size([8, 6])})
        True
    """
    shape = tuple(tensor.shape)
    return any(len(shape) > len(s) and shape[-len(s) :] == tuple(s) for s in sizes)


def check_nothing_lies_over(
    inputs: tuple[Tensor, ...], named: Iterable[tuple[str, Tensor | np.ndarray]]
) -> None:
    """Refuses tensors and arrays that lie over an input and are not mirrored with it.

    Args:
        inputs (tuple of Tensor): Inputs, N x ... each.
        named (iterable): Names and values of other tensors that the network or the method gets.

    Raises:
        ValueError: If there is one.
    """
    sizes = sizes_of(inputs)
    if any(one.dim() == 2 and lies_over(one, sizes) for one in inputs):
        raise ValueError(
            "An input of shape N x L beside one of N x C x L is not mirrored with it: give it "
            "as N x 1 x L, or flip=False."
        )
    for name, part in named:
        if lies_over(part, sizes) or (len(part.shape) > 1 and tuple(part.shape) in sizes):
            kind = "A tensor" if isinstance(part, Tensor) else "An array"
            raise ValueError(
                f"{kind} of shape {tuple(part.shape)} in {name} lies over the input, and "
                "is not mirrored with it. Give it among the inputs, as in attribute((image,"
                " mask)), where it is; or flip=False; or, in additional_forward_args, "
                "Shared(tensor) for what does not lie over it."
            )


def check_no_places(
    forward_func: _captum.ForwardFunc,
    inputs: tuple[Tensor, ...],
    targets: list[Any],
    output: torch.Size | None,
    *,
    instead: str = "flip=False",
) -> None:
    """Refuses targets and networks that name a place, which is not mirrored with the input.

    Args:
        forward_func (Callable): The network or any modification of its forward function.
        inputs (tuple of Tensor): Inputs, N x ... each.
        targets (list): Targets in any of Captum's forms.
        output (torch.Size or None): The shape of the output of one sample, which tells whether
            targets may name places; None if it is not known.
        instead (str, optional): The option that mirrors nothing. Default: "flip=False".

    Raises:
        ValueError: If a target is a tuple of several indices; if the output has more dimensions
            than N x classes, or one value for each position of an input; or if the network asks
            about a box, or about a region that is not mirrored.
    """
    modules = reached_modules(forward_func)
    sizes = sizes_of(inputs)
    if any(isinstance(module, BoxScore) for module in modules):
        raise ValueError(
            "The network is a BoxScore, and its boxes are not mirrored with the input: give "
            f"{instead}."
        )
    others = [one for one in inputs if not has_positions(one)]
    along = len(inputs) > 1 and all(lies_over(one, sizes) for one in others)
    if not along and any(isinstance(module, RegionMean) for module in modules):
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
    if output is None or output.numel() < 2:
        return
    if len(output) > 1 or output[0] in {size.numel() for size in sizes}:
        raise ValueError(
            f"An output of shape N x {' x '.join(map(str, output))} has places, and the one that a "
            f"target names is not mirrored with the input. {_SCORE}; or give {instead}."
        )


def can_be_mirrored(call: Call, place: int) -> bool:
    """Whether an input may be looked at mirrored: nothing that the call says names a place.

    A sequence would run backwards. Another input or argument may be about a place, whatever its
    shape, unless it is a number, a word, or a number for each sample. A place that the forward
    function itself picks is not seen.

    Args:
        call (Call): A call, of which a pass has shown the output.
        place (int): The place of the input.

    Returns:
        bool: Whether it is an image or a volume, and neither the target nor another argument may
        name a place.

    Examples::

        >>> from captum_groupcam.masking.call import prepare
        >>> call = prepare(torch.nn.Flatten().eval(), torch.ones(2, 3, 4, 4), 0, None)
        >>> can_be_mirrored(call, 0), can_be_mirrored(call._replace(inputs=call.inputs * 2), 0)
        (True, False)
    """
    network = call.network
    others = [*call.inputs[:place], *call.inputs[place + 1 :], *network.additional_forward_args]
    if call.inputs[place].dim() < 4 or not all(
        _is_number(one, network.n_samples) for one in others
    ):
        return False
    indices = getattr(network.target, "indices", None)
    targets = [] if indices is None else [tuple(indices[0].tolist())]
    try:
        check_no_places(network.forward_func, call.inputs, targets, network.once.output)
    except ValueError:
        return False
    return True


def _is_number(value: Any, n_samples: int) -> bool:
    """Whether an argument is a number, a word or nothing, for all samples or for each."""
    if isinstance(value, Shared):
        return _is_number(value.value, 1)
    if isinstance(value, Tensor):
        return value.numel() in (1, n_samples)
    return value is None or isinstance(value, (bool, int, float, str))


def output_shape(
    forward_func: _captum.ForwardFunc,
    inputs: tuple[Tensor, ...],
    arguments: Callable[[], tuple[Any, ...]] = tuple,
) -> torch.Size | None:
    """The shape of the output of one sample, which runs; None if it fails or gives no tensor.

    Args:
        forward_func (Callable): The network or any modification of its forward function.
        inputs (tuple of Tensor): Inputs, N x ... each.
        arguments (Callable, optional): Gives the additional arguments of a single sample.
            Default: there are none.
    """
    network = _compiled.on_one_device(forward_func)
    with torch.no_grad(), _compiled.uncompiled():
        try:
            output = network(*(one[:1].clone() for one in inputs), *arguments())
        except Exception:  # the call itself will say what is wrong
            return None
    return output.shape[1:] if isinstance(output, Tensor) else None
