"""How a method is called, whatever it is: a network and a layer, then inputs and a target."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["Factory", "Method", "Subject", "Target", "factory"]

#: What is explained, in any of Captum's forms for outputs of shape N x classes.
Target: TypeAlias = int | Tensor | list[int]
#: Explains inputs (N x C x H x W) for a target: N x 1 x H x W. A ValueError if it needs a layer and
#: has none.
Method: TypeAlias = Callable[[Tensor, Target], Tensor]


class Factory(Protocol):
    """Makes a method for a network."""

    def __call__(
        self,
        model: Module,
        layer: Module | None = None,
        *,
        attribute_to_layer_input: bool = False,
        reshape_transform: ReshapeTransform | None = None,
        **options: Any,
    ) -> Method:
        """Binds a method to a network.

        Args:
            model (Module): A classifier in evaluation mode: N x C x H x W to N x classes.
            layer (Module, optional): The layer that methods on a layer explain; others ignore it.
                Default: None.
            attribute_to_layer_input (bool, optional): Whether the layer's input is meant.
                Default: False.
            reshape_transform (Callable, optional): Brings the layer's activations to N x K x h x w,
                for transformers; see :func:`~captum_groupcam.networks.layers.find_layer`.
                Default: None.
            **options (Any, optional): Arguments of the method's function.

        Raises:
            TypeError: If the method has no such option.
        """
        ...


class Subject(NamedTuple):
    """The network that is explained, and where.

    Attributes:
        model (torch.nn.Module): N x C x H x W to N x classes.
        layer (torch.nn.Module or None): The layer, for methods on a layer.
        attribute_to_layer_input (bool): Whether its input is meant.
        reshape_transform (Callable or None): Brings its activations to N x K x h x w.
    """

    model: Module
    layer: Module | None
    attribute_to_layer_input: bool
    reshape_transform: ReshapeTransform | None


def factory(explain: Callable[..., Tensor]) -> Factory:
    """Makes an entry of :data:`~captum_groupcam.methods.METHODS` of a function.

    Args:
        explain (Callable): Takes a :class:`Subject`, inputs (N x C x H x W), the target, and its
            own options by name; returns N x 1 x H x W.

    Returns:
        Factory: Binds the function to a network. Inputs and outputs are checked, and the global
        state is kept.

    Examples::

        >>> def brightness(subject, inputs, target):
        ...     return inputs.mean(1, keepdim=True)
        >>> explain = factory(brightness)(torch.nn.Flatten().eval())
        >>> explain(torch.ones(2, 3, 4, 4), 0).shape
        torch.Size([2, 1, 4, 4])
    """

    def bind(
        model: Module,
        layer: Module | None = None,
        *,
        attribute_to_layer_input: bool = False,
        reshape_transform: ReshapeTransform | None = None,
        **options: Any,
    ) -> Method:
        inspect.signature(explain).bind(None, None, None, **options)
        subject = Subject(model, layer, attribute_to_layer_input, reshape_transform)
        return partial(_run, explain, subject, options)

    return bind


def _run(
    explain: Callable[..., Tensor],
    subject: Subject,
    options: dict[str, Any],
    inputs: Tensor,
    target: Target,
) -> Tensor:
    """Checks what goes in and comes out, and keeps the method to itself."""
    if inputs.dim() != 4 or not len(inputs) or not inputs.is_floating_point():
        raise ValueError(
            "Expected floating-point inputs of shape N x C x H x W, got "
            f"{tuple(inputs.shape)}, {inputs.dtype}."
        )
    if not inputs.isfinite().all():
        raise ValueError("The inputs contain NaN or infinite values.")
    if subject.model.training:
        raise ValueError("Explain a model in evaluation mode: call model.eval() first.")
    # A seed reaches all devices.
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if initialized else ()
    with (
        torch.inference_mode(False),
        torch.random.fork_rng(devices),
        warnings.catch_warnings(),
    ):
        # Captum on what it does to a network and inputs that nobody else sees.
        warnings.filterwarnings("ignore", "Setting backward hooks on ReLU activations")
        warnings.filterwarnings("ignore", "Input Tensor . did not already require gradients")
        maps = explain(subject, inputs.detach().clone(), target, **options).detach()
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    expected = (len(inputs), 1, *inputs.shape[2:])
    if tuple(maps.shape) != expected or not maps.isfinite().all():
        raise ValueError(f"Expected finite maps of shape {expected}, got {tuple(maps.shape)}.")
    return maps
