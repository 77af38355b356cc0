"""What every call of ``attribute`` begins with: its arguments, checked and brought to one form."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum
from captum_groupcam.masking._arguments import plain
from captum_groupcam.masking._call import Call
from captum_groupcam.masking._chance import warn_of_chance
from captum_groupcam.masking._inputs import (
    check_channels_first,
    check_grid,
    check_input,
    is_spatial,
)
from captum_groupcam.masking._lists import with_entries
from captum_groupcam.masking._places import check_places
from captum_groupcam.masking._rows import random_states, settled
from captum_groupcam.masking._zero_maps import (
    ROUNDING_OF_SCORES,
    all_alike,
    expecting_zero_maps,
    leveled,
    warn_of_zero_maps,
    without_rounding,
)
from captum_groupcam.masking.baselines import Baseline, Baselines, for_inputs, resolve_baseline
from captum_groupcam.masking.network import Network, ScoreFunc, class_probability
from captum_groupcam.masking.targets import Target
from captum_groupcam.networks.axes import check_channels, check_frames
from captum_groupcam.networks.training import has_batch_statistics, in_training

__all__ = [
    "ROUNDING_OF_SCORES",
    "Call",
    "TensorOrTuple",
    "all_alike",
    "check_channels_first",
    "check_grid",
    "check_places",
    "expecting_zero_maps",
    "in_training",
    "is_spatial",
    "isolated",
    "leveled",
    "like_inputs",
    "prepare",
    "random_states",
    "warn_of_chance",
    "warn_of_zero_maps",
    "without_rounding",
]

#: One input or several; what a method returns has the same form.
TensorOrTuple = TypeVar("TensorOrTuple", Tensor, tuple[Tensor, ...])


def like_inputs(inputs: TensorOrTuple, attributions: tuple[Tensor, ...]) -> TensorOrTuple:
    """Returns a tuple where the inputs are one.

    Args:
        inputs (Tensor or tuple of Tensor): The inputs as they were given, N x C x spatial.
        attributions (tuple of Tensor): One for each input, N x 1 x spatial.

    Returns:
        Tensor or tuple of Tensor: The attributions, N x 1 x spatial.

    Examples::

        >>> like_inputs(torch.ones(1, 3, 2), (torch.zeros(1, 1, 2),))
        tensor([[[0., 0.]]])
    """
    return attributions if isinstance(inputs, tuple) else attributions[0]


@contextmanager
def isolated() -> Iterator[None]:
    """Runs without a graph, also inside ``torch.inference_mode``, where none could be made.

    Examples::

        >>> with torch.inference_mode(), isolated():
        ...     torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        (False, False)
    """
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        # Weights that autocast has brought to lower precision here have no graph to train by.
        torch.clear_autocast_cache()


def prepare(
    forward_func: _captum.ForwardFunc,
    inputs: Tensor | tuple[Tensor, ...],
    target: _captum.TargetType,
    additional_forward_args: Any,
    baselines: Baselines = None,
    *,
    default_baseline: Baseline = None,
    masked: bool = True,
    at_layer: bool = False,
    score_func: ScoreFunc = class_probability,
    internal_batch_size: int | None = None,
    device_ids: list[int] | None = None,
) -> Call:
    """Checks the arguments that Captum's methods share.

    Args:
        forward_func (Callable): The network or any modification of its forward function.
        inputs (Tensor or tuple of Tensor): N x ... each. Floating-point inputs with spatial
            dimensions (N x C x spatial, one to three of them) are masked, others passed on.
        target (int, tuple, Tensor, list or None): As in Captum.
        additional_forward_args (Any): As in Captum.
        baselines (Tensor, float, callable, None or tuple of these, optional): See
            :func:`~captum_groupcam.masking.baselines.resolve_baselines`. A tuple has an entry for
            each input; that of an input which is not masked is ignored. Default: None.
        default_baseline (Tensor, float or callable, optional): What None stands for, of the
            input's shape. Default: None, Group-CAM's blur.
        masked (bool, optional): Whether inputs will be seen through masks; otherwise they need no
            baselines. Default: True.
        at_layer (bool, optional): Whether maps stay at the resolution of a layer, so that the
            order of the inputs' axes does not matter. Default: False.
        score_func (Callable, optional): See :class:`~captum_groupcam.masking.network.Network`.
            Default: softmax over dimension 1.
        internal_batch_size (int, optional): Rows of one forward pass. Default: None.
        device_ids (list of int, optional): As in Captum. Default: None.

    Returns:
        Call: Inputs and baselines of N samples, and the network that is asked.

    Raises:
        TypeError: If an input is not a tensor.
        ValueError: If there are no samples, batch sizes differ, a value is not finite, no input
            has spatial dimensions, or the channels of one come last.

    Examples::

        >>> call = prepare(torch.nn.Flatten().eval(), torch.ones(2, 3, 4), 0, None, 0.5)
        >>> call.network.n_samples, call.hidden[0].shape, call.hidden[0].unique()
        (2, torch.Size([2, 3, 4]), tensor([0.5000]))
    """
    if not callable(forward_func):
        raise TypeError(f"forward_func must be a network or a function, got {forward_func!r}.")
    if isinstance(forward_func, Module):
        for parameter in itertools.islice(forward_func.parameters(), 1):
            if parameter.is_meta:
                raise TypeError("The network has no weights: it is on the device meta.")
    whole = inputs if isinstance(inputs, tuple) else (inputs,)
    for position, tensor in enumerate(whole):
        check_input(position, tensor, whole[0])
    spatial = [is_spatial(tensor) for tensor in whole]
    if not any(spatial):
        raise ValueError(
            "Expected an input of shape N x C x spatial, floating point, with one to three spatial "
            f"dimensions; got {[(tuple(t.shape), t.dtype) for t in whole]}."
        )
    if len({tensor.dim() for tensor in whole if is_spatial(tensor)}) > 1:
        raise ValueError(
            "Inputs that are explained need the same number of spatial dimensions, got the shapes "
            f"{[tuple(t.shape) for t in whole]}. Pass the others as additional_forward_args."
        )
    if in_training(forward_func):
        _captum.warn(
            "The network is in training mode: dropout and batch statistics make its scores depend "
            "on chance and on the batch. Call eval() on it first."
        )
    elif internal_batch_size != 1 and has_batch_statistics(forward_func):
        _captum.warn(
            "A batch norm of the network has no running statistics and goes by those of the batch: "
            "scores, and so the map, depend on what else is in it. Give internal_batch_size=1."
        )

    whole = tuple(tensor.detach().as_subclass(Tensor) for tensor in whole)
    baselines = for_inputs(baselines, len(whole))
    extra = additional_forward_args
    extra = () if extra is None else extra if isinstance(extra, tuple) else (extra,)
    network = Network(
        forward_func,
        Target.of(target, whole[0].shape[0], whole[0].device),
        plain(extra),
        whole[0].shape[0],
        score_func,
        internal_batch_size,
        device_ids,
    )
    network = settled(with_entries(network, whole), whole)
    first = torch.zeros(1, dtype=torch.long, device=whole[0].device)
    check_frames(forward_func, whole, lambda: network.arguments(first))
    if not at_layer:
        check_channels(forward_func, whole, lambda: network.arguments(first))
    resolved = tuple(
        resolve_baseline(default_baseline if baseline is None else baseline, tensor)
        if masked and has_positions
        else None
        for tensor, baseline, has_positions in zip(whole, baselines, spatial, strict=True)
    )
    return Call(whole, resolved, network)
