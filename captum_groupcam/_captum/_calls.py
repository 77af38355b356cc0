"""Captum's log, progress bar, rules and forward passes, and warnings on behalf of its caller."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import torch
from captum._utils.common import _run_forward
from captum._utils.progress import NullProgress, progress
from captum._utils.typing import TargetType
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from captum.log import log_usage as _log_usage
from torch import Tensor
from torch.nn import Module

from captum_groupcam.threads import exclusive

__all__ = [
    "LRP_RULES",
    "ForwardFunc",
    "TargetType",
    "log_usage",
    "of_inference",
    "progress_bar",
    "run_forward",
    "warn",
    "without_class",
]

ForwardFunc: TypeAlias = Callable[..., Any]
#: How relevance is passed back through a module, by its name in the papers.
LRP_RULES: dict[str, Callable[[], Any]] = {
    "gamma": GammaRule,
    "epsilon": EpsilonRule,
    "alpha1_beta0": Alpha1_Beta0_Rule,
}
_Function = TypeVar("_Function", bound=Callable[..., Any])


def log_usage(function: _Function) -> _Function:
    """Captum's usage log, which Insights relies on, around a call that has its network alone.

    Insights calls ``attribute.__wrapped__``, which is that call.
    """
    return cast(_Function, _log_usage()(exclusive()(function)))


def warn(message: str) -> None:
    """Warns on behalf of the caller: the first one outside of the library and of Captum."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and _is_inside(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _is_inside(module: str) -> bool:
    return module.partition(".")[0] in {"captum", "captum_groupcam"}


def progress_bar(description: str, total: int, show: bool) -> Any:
    """Captum's progress bar as a context manager with ``update(n)``."""
    return progress(desc=description, total=total) if show else NullProgress()


def without_class(tensor: Tensor) -> Tensor:
    """A tensor without what only a class of its own knows, such as operations that it refuses.

    It has the same values and the same graph. It is the tensor itself where that is plain, or where
    its class holds the values in another form.

    Examples::

        >>> type(without_class(torch.nn.Parameter(torch.ones(2)))) is Tensor
        True
    """
    in_another_form = type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__
    if type(tensor) is Tensor or in_another_form:
        return tensor
    return tensor.as_subclass(Tensor)


def run_forward(
    forward_func: ForwardFunc, inputs: tuple[Tensor, ...], additional_forward_args: tuple[Any, ...]
) -> Tensor:
    """Calls the forward function as Captum does and checks that a tensor comes back.

    Raises:
        TypeError: If the forward function returns anything else.
        ValueError: If it fails for inputs that seem to lack the batch dimension, or for tensors of
            inference mode, which have no gradients.
        RuntimeError: If it fails otherwise.
    """
    try:
        output = _run_forward(
            forward_func, inputs, additional_forward_args=additional_forward_args or None
        )
    except (RuntimeError, ValueError) as error:
        said = of_inference(error) or _missing_axes(forward_func, inputs)
        if said is not None:
            raise ValueError(said) from error
        raise
    if not isinstance(output, Tensor):
        raise TypeError(
            f"forward_func returned a {type(output).__name__}, expected a tensor. Wrap it so "
            "that it returns the tensor to explain: captum_groupcam.networks.outputs.SelectOutput."
        )
    if output.is_complex() or output.dtype is torch.bool or output.layout is not torch.strided:
        raise TypeError(
            "forward_func must return a dense tensor of real numbers, got "
            f"{output.dtype}, {output.layout}."
        )
    if output.is_meta and not any(tensor.is_meta for tensor in inputs):
        raise TypeError("forward_func returned a tensor without values, on the device meta.")
    return without_class(output)


def of_inference(error: Exception) -> str | None:
    """What to say of a pass that failed as tensors of inference mode have no gradients."""
    if not isinstance(error, RuntimeError) or "nference tensor" not in str(error):
        return None
    return (
        "Weights of the network, or what it holds beside them, were made inside of "
        "torch.inference_mode, so that no gradients lead through them. Build or load the network "
        "outside of it, or explain copy.deepcopy(network) and a layer of that, made outside of it. "
        "GroupCAM with gradient_free=True, ScoreCAM and RISE need no gradients."
    )


def _missing_axes(forward_func: ForwardFunc, inputs: tuple[Tensor, ...]) -> str | None:
    """What to say of a pass that failed, if its inputs look like samples without a batch."""
    if not isinstance(forward_func, Module):
        return None
    kinds = {torch.nn.Conv1d: 3, torch.nn.Conv2d: 4, torch.nn.Conv3d: 5}
    needed = {dim for kind, dim in kinds.items() for m in forward_func.modules() if type(m) is kind}
    spatial = [tensor for tensor in inputs if tensor.is_floating_point() and tensor.dim() > 1]
    if len(needed) != 1 or not any(tensor.dim() == min(needed) - 1 for tensor in spatial):
        return None
    shapes = [tuple(tensor.shape[1:]) for tensor in spatial]
    return (
        f"The network failed for inputs of shape N x {shapes[0]}; its convolutions take "
        f"{min(needed)} dimensions, N x C x spatial. Give a single sample a batch dimension: "
        "inputs.unsqueeze(0)."
    )
