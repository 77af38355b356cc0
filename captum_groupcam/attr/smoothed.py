"""Smoother maps of any method: over altered inputs, and by the first principal component."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.attr.maps import principal_component
from captum_groupcam.masking.call import TensorOrTuple, like_inputs
from captum_groupcam.masking.masks import normalize

__all__ = ["FACTORS", "Smoothed", "by_component", "mean_over_altered"]

#: As in pytorch-grad-cam.
FACTORS = (0.9, 1.0, 1.1)


class Smoothed(Attribution):
    """The mean map over inputs that are mirrored and brighter or darker.

    That is test-time augmentation, ``aug_smooth`` in pytorch-grad-cam. Where noise is meant, there
    is :class:`captum.attr.NoiseTunnel`.

    Args:
        method (captum.attr.Attribution): The method, of this package or of Captum. With
            :func:`by_component` the map is smoothed by its first principal component, too.

    Examples::

        >>> from torch import nn
        >>> from captum_groupcam import GradCAM
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> smoothed = Smoothed(GradCAM(nn.Sequential(features, head).eval(), features))
        >>> smoothed.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    def __init__(self, method: Attribution) -> None:
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
            ValueError: If there are no factors, or a baseline has positions, which would not be
                mirrored.
        """
        if not factors:
            raise ValueError("Expected at least one factor to multiply the inputs by, got none.")
        whole = inputs if isinstance(inputs, tuple) else (inputs,)
        baselines = kwargs.get("baselines")
        for baseline in baselines if isinstance(baselines, tuple) else (baselines,):
            if flip and isinstance(baseline, Tensor) and baseline.dim() > 2:
                raise ValueError(
                    "A baseline with positions is not mirrored with its input: give a number or a "
                    "function of the input, or flip=False."
                )

        def explain(seen: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(self.method.attribute(seen, *args, **kwargs))

        return like_inputs(inputs, mean_over_altered(explain, whole, flip, factors, scaled=scaled))


def mean_over_altered(
    explain: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    flip: bool = True,
    factors: Sequence[float] = FACTORS,
    *,
    scaled: bool = False,
) -> tuple[Tensor, ...]:
    """The mean map over altered inputs, see :meth:`Smoothed.attribute`.

    Args:
        explain (Callable): Gives a map for each of some inputs.
        inputs (tuple of Tensor): N x C x spatial each.
        flip (bool, optional): Whether they are mirrored, too. Default: True.
        factors (sequence of float, optional): What they are multiplied by. Default: 0.9, 1, 1.1.
        scaled (bool, optional): Whether each map is brought to [0, 1] first. Default: False.

    Returns:
        tuple of Tensor: As ``explain`` gives them.

    Examples::

        >>> inputs = (torch.tensor([[[1.0, 2.0]]]),)
        >>> mean_over_altered(lambda seen: (seen[0] * torch.tensor([1.0, 0.0]),), inputs)
        (tensor([[[0.5000, 1.0000]]]),)
    """
    total: tuple[Tensor, ...] = ()
    for mirrored, factor in itertools.product((False, True)[: 1 + flip], factors):
        found = explain(tuple(_altered(one, mirrored, factor) for one in inputs))
        maps = tuple(_scaled(m.detach()) if scaled else m.detach() for m in found)
        back = tuple(m.flip(-1) if mirrored and m.dim() > 2 else m for m in maps)
        total = tuple(map(torch.add, total, back)) if total else back
    count = len(factors) * (1 + flip)
    return tuple(one / count for one in total)


def _altered(one: Tensor, mirrored: bool, factor: float) -> Tensor:
    if not one.is_floating_point() or one.dim() < 3:
        return one
    return (one.flip(-1) if mirrored else one) * factor


def _scaled(maps: Tensor) -> Tensor:
    return normalize(maps.relu()) if maps.dim() > 2 else maps


def by_component(method: LayerFormula) -> LayerFormula:
    """A method whose map is the first principal component of what it would add up.

    That is ``eigen_smooth`` in pytorch-grad-cam, for each method that is a sum over channels:
    :class:`~captum_groupcam.GradCAM`, :class:`~captum_groupcam.LayerCAM` and their kind.

    Args:
        method (LayerFormula): The method.

    Returns:
        LayerFormula: Its relative, with the same network and layer.

    Raises:
        TypeError: If the method is no sum over channels of activations and gradients; where only
            its map shows that, by ``attribute``.

    Examples::

        >>> from torch import nn
        >>> from captum_groupcam import LayerCAM
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> smooth = by_component(LayerCAM(nn.Sequential(features, head).eval(), features))
        >>> smooth.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """
    whole = type(method)
    if not (isinstance(method, LayerFormula) and whole._maps is LayerFormula._maps):
        raise TypeError(
            f"The map of {whole.__name__} is no sum over channels of activations and gradients."
        )

    def formula(activations: Tensor, gradients: Tensor) -> Tensor:
        # Of one channel, the formula gives what it adds.
        channels = (t.flatten(0, 1).unsqueeze(1) for t in (activations, gradients))
        terms = whole.formula(*channels).view_as(activations)
        expected = whole.formula(activations, gradients)
        error = (terms.sum(1, keepdim=True) - expected).abs().max()
        if error > 1e-3 * expected.abs().max():
            raise TypeError(f"The map of {whole.__name__} is no sum over channels.")
        return principal_component(terms)

    names = {"formula": staticmethod(formula), "title": f"{whole.get_name()}, smoothed"}
    related: type[LayerFormula] = type(f"Smoothed{whole.__name__}", (whole,), names)
    return related(method.forward_func, method.layer, method.device_ids)
