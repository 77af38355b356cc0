"""What every call of ``attribute`` begins with: its arguments, checked and brought to one form."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum
from captum_groupcam.masking.baselines import Baselines, resolve_baseline
from captum_groupcam.masking.masks import MaskSource
from captum_groupcam.masking.network import Network, ScoreFunc, class_probability
from captum_groupcam.masking.queries import merge_masks
from captum_groupcam.masking.targets import Target

__all__ = ["Call", "isolated", "prepare", "warn_of_zero_maps"]


class Call(NamedTuple):
    """The arguments of one call of ``attribute``.

    Attributes:
        inputs (tuple of Tensor): Inputs of N samples, without a graph.
        baselines (tuple of Tensor or None): The baseline of each input; None for an input that is
            not masked.
        network (Network): What answers the queries.
    """

    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor | None, ...]
    network: Network

    @property
    def hidden(self) -> tuple[Tensor, ...]:
        """The inputs with nothing to be seen of what masks cover, in their memory format."""
        return tuple(
            whole if baseline is None else torch.empty_like(whole).copy_(baseline)
            for whole, baseline in zip(self.inputs, self.baselines, strict=True)
        )

    def check_maps(self, activations: Tensor) -> None:
        """Checks that a layer's activations can be masks of the inputs.

        Raises:
            ValueError: If they have not N x K x spatial dimensions like the masked inputs, or are
                not finite.
        """
        (dims,) = {baseline.dim() for baseline in self.baselines if baseline is not None}
        if activations.dim() != dims or activations.shape[0] != self.network.n_samples:
            raise ValueError(
                f"The layer's activations have the shape {tuple(activations.shape)}; masks for "
                f"{self.network.n_samples} inputs with {dims - 2} spatial dimensions need N x K x "
                f"spatial with {dims} dimensions. Choose a layer before the spatial dimensions are "
                "gone, or give a reshape_transform that restores them."
            )
        if not activations.isfinite().all():
            raise ValueError("The layer's activations contain NaN or infinite values.")

    def merge(
        self, masks: MaskSource, weights: Tensor, *, normalized: bool = True
    ) -> tuple[Tensor, ...]:
        """Merges masks at the resolution of each input; zero (N x 1) for one that is not masked."""
        size = self.network.batch_size(weights.device)
        return tuple(
            weights.new_zeros(whole.shape[0], 1)
            if baseline is None
            else merge_masks(
                masks, weights, whole.shape[2:], batch_size=size, normalized=normalized
            )
            for whole, baseline in zip(self.inputs, self.baselines, strict=True)
        )


@contextmanager
def isolated() -> Iterator[None]:
    """Runs without a graph, also inside ``torch.inference_mode``, where none could be made."""
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
    baselines: Baselines,
    *,
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
        baselines (Tensor, float, callable, None or tuple of these): See
            :func:`~captum_groupcam.masking.baselines.resolve_baselines`. A tuple has an entry for
            each input; that of an input which is not masked is ignored.
        score_func (Callable): See :class:`~captum_groupcam.masking.network.Network`.
        internal_batch_size (int, optional): Rows of one forward pass. Default: None.
        device_ids (list of int, optional): As in Captum. Default: None.

    Raises:
        TypeError: If an input is not a tensor.
        ValueError: If there are no samples, batch sizes differ, a value is not finite, or no input
            has spatial dimensions.
    """
    whole = inputs if isinstance(inputs, tuple) else (inputs,)
    for position, tensor in enumerate(whole):
        _check_input(position, tensor, whole[0])
    masked = [_is_spatial(tensor) for tensor in whole]
    if not any(masked):
        raise ValueError(
            "Expected an input of shape N x C x spatial, floating point, with one to three spatial "
            f"dimensions; got {[(tuple(t.shape), t.dtype) for t in whole]}."
        )
    if len({t.dim() for t, spatial in zip(whole, masked, strict=True) if spatial}) > 1:
        raise ValueError(
            "Inputs that are masked need the same number of spatial dimensions, got the shapes "
            f"{[tuple(t.shape) for t in whole]}. Pass the others as additional_forward_args."
        )
    _warn_if_training(forward_func)

    whole = tuple(tensor.detach() for tensor in whole)
    if not isinstance(baselines, tuple):
        baselines = (baselines,) * len(whole)
    if len(baselines) != len(whole):
        raise ValueError(f"Expected {len(whole)} baselines, one an input, got {len(baselines)}.")
    extra = additional_forward_args
    extra = () if extra is None else extra if isinstance(extra, tuple) else (extra,)
    network = Network(
        forward_func,
        Target.of(target, whole[0].shape[0], whole[0].device),
        # Tensors of inference mode could not be part of a graph.
        tuple(a.clone() if isinstance(a, Tensor) and a.is_inference() else a for a in extra),
        whole[0].shape[0],
        score_func,
        internal_batch_size,
        device_ids,
    )
    resolved = tuple(
        resolve_baseline(baseline, tensor) if spatial else None
        for tensor, baseline, spatial in zip(whole, baselines, masked, strict=True)
    )
    return Call(whole, resolved, network)


def _check_input(position: int, tensor: Tensor, first: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"inputs must be a tensor or a tuple of tensors, got {type(tensor).__name__}."
        )
    if tensor.dim() == 0 or tensor.shape[0] == 0:
        raise ValueError(f"Input {position} has no samples, its shape is {tuple(tensor.shape)}.")
    if tensor.shape[0] != first.shape[0]:
        raise ValueError(
            f"Input {position} has {tensor.shape[0]} samples, the first has {first.shape[0]}."
        )
    finite = tensor.isfinite().flatten(1).all(1) if tensor.dim() > 1 else tensor.isfinite()
    if not finite.all():
        raise ValueError(
            f"Input {position} contains NaN or infinite values in samples "
            f"{(~finite).nonzero().flatten().tolist()}."
        )


def _is_spatial(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and 3 <= tensor.dim() <= 5


def _warn_if_training(forward_func: _captum.ForwardFunc) -> None:
    if isinstance(forward_func, Module) and forward_func.training:
        warnings.warn(
            "The network is in training mode: dropout and batch statistics make its scores depend "
            "on chance and on the batch. Call eval() on it first.",
            stacklevel=5,  # past prepare, attribute and its log
        )


def warn_of_zero_maps(queried: Tensor) -> None:
    """Warns, on behalf of the caller of ``attribute``, of samples none of whose masks was queried.

    Args:
        queried (Tensor): N x G booleans: which masks were queried.
    """
    if not queried.any(1).all():
        dead = (~queried.any(1)).nonzero().flatten().tolist()
        warnings.warn(
            f"The maps of samples {dead} are zero: every mask is flat, or the input equals its "
            "baseline.",
            stacklevel=4,
        )
