"""Smoother maps of any method: the mean over altered inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from captum.attr import Attribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr.functional.smoothed import FACTORS, mean_over_altered
from captum_groupcam.masking.call import TensorOrTuple, like_inputs

__all__ = ["Smoothed"]


class Smoothed(Attribution):
    """The mean map over inputs that are mirrored and brighter or darker.

    That is test-time augmentation, ``aug_smooth`` in pytorch-grad-cam. Where noise is meant, there
    is :class:`captum.attr.NoiseTunnel`.

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
