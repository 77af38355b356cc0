"""Smoother maps of any method: the mean over altered inputs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr._mirrored import check_no_places, check_nothing_lies_over, output_shape
from captum_groupcam.attr.functional.smoothed import FACTORS, mean_over_altered
from captum_groupcam.masking.call import (
    TensorOrTuple,
    expecting_zero_maps,
    like_inputs,
    warn_of_zero_maps,
)
from captum_groupcam.masking.checks import check_between
from captum_groupcam.masking.network import arrays_of, of_rows
from captum_groupcam.networks.axes import check_channels
from captum_groupcam.networks.tensors import check_tensor

__all__ = ["Smoothed"]


class Smoothed(Attribution):
    """The mean map over inputs that are mirrored and brighter or darker.

    That is test-time augmentation, ``aug_smooth`` in pytorch-grad-cam. Where noise is meant, there
    is :class:`captum.attr.NoiseTunnel`.

    A target that names a place in the output, as of a segmentation network, is not mirrored with
    the input, nor is a place that the forward function itself picks: the network must give a score,
    N x classes, that follows what the input shows.

    Args:
        method (captum.attr.Attribution): The method, of this package or of Captum. With
            :func:`~captum_groupcam.attr.by_component.by_component` the map is smoothed by its
            first principal component, too.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> from captum_groupcam import GradCAM
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> smoothed = Smoothed(GradCAM(nn.Sequential(features, head).eval(), features))
        >>> smoothed.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    def __init__(self, method: Attribution) -> None:
        if not isinstance(method, Attribution):
            name = getattr(method, "__name__", type(method).__name__)
            made = f"{name if isinstance(method, type) else 'GradCAM'}(network, ...)"
            raise TypeError(f"method must be a method of a network, as {made} is, got {name}.")
        super().__init__(method.forward_func)
        self.method = method

    @_captum.log_usage
    def attribute(
        self,
        inputs: TensorOrTuple,
        *args: Any,
        flip: bool = True,
        factors: Sequence[float] = FACTORS,
        scaled: bool = False,
        **kwargs: Any,
    ) -> TensorOrTuple:
        """Computes a map for each of the altered inputs, turns it back, and takes the mean.

        Args:
            inputs (Tensor or tuple of Tensor): N x C x spatial; those with positions are altered.
                One of whole numbers that lies over another, as a mask does, is mirrored only.
            *args (Any, optional): As in the method's own ``attribute``.
            flip (bool, optional): Whether they are mirrored along the last axis, too.
                Default: True.
            factors (sequence of float, optional): What they are multiplied by. Default: 0.9, 1 and
                1.1, as in pytorch-grad-cam.
            scaled (bool, optional): Whether the positive part of each map is brought to [0, 1]
                first, as in pytorch-grad-cam. Default: False.
            **kwargs (Any, optional): As in the method's own ``attribute``.

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x spatial, or what
            else the method returns.

        Raises:
            TypeError: If ``flip`` is not a bool, or ``factors`` are not numbers.
            ValueError: If there are no factors; if the channels of an input come last; or if a
                baseline or another argument has positions, the target names a place, or the network
                asks about a box or a region that would not be mirrored.
        """
        if not isinstance(flip, bool):
            raise TypeError(f"flip must be True or False, got {flip!r}.")
        if not isinstance(factors, (list, tuple)):
            raise TypeError(f"factors must be a tuple of numbers, got {factors!r}.")
        if not factors:
            raise ValueError("Expected at least one factor to multiply the inputs by, got none.")
        for factor in factors:
            check_between("each of factors", factor, -torch.inf, torch.inf, ends="()")
        whole = inputs if isinstance(inputs, tuple) else (inputs,)
        for one in whole:
            check_tensor("Each of inputs", one)
        if flip:
            self._check_mirrored(whole, args, kwargs)

        def explain(seen: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            ask = partial(self.method.attribute, seen, *args, **kwargs)
            return tuple(expecting_zero_maps(ask))

        maps = mean_over_altered(explain, whole, flip, factors, scaled=scaled)
        warn_of_zero_maps(None, maps)
        return like_inputs(inputs, maps)

    def _check_mirrored(
        self, inputs: tuple[Tensor, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Refuses arguments that would stay as they are where the input is mirrored."""
        try:
            bound = inspect.signature(self.method.attribute).bind_partial(inputs, *args, **kwargs)
        except TypeError:  # the call will say what is wrong
            return
        _, *given = bound.arguments.items()
        named = dict(given)
        named.update(named.pop("kwargs", {}))
        extra = named.pop("additional_forward_args", None)
        extra = () if extra is None else extra if isinstance(extra, tuple) else (extra,)
        others = [*_tensors(named), *arrays_of(extra).items()]
        if any(name == "baselines" and len(part.shape) > 2 for name, part in others):
            raise ValueError(
                "A baseline with positions is not mirrored with its input: give a number "
                "or a function of the input, or flip=False."
            )
        check_nothing_lies_over(inputs, others)
        first = torch.zeros(1, dtype=torch.long)
        row = partial(of_rows, extra, first, len(inputs[0]))
        check_channels(self.forward_func, inputs, row)
        targets = [named.get("target"), *(named.get("targets") or ())]
        shape = output_shape(self.forward_func, inputs, row)
        check_no_places(self.forward_func, inputs, targets, shape)


def _tensors(named: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors among arguments, but for the target."""
    for name, value in named.items():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, Tensor) and name != "target":
                yield name, part
