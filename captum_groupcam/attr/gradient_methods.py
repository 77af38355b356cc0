"""Captum's methods of the gradient at the input, each reduced to one channel as its paper does."""

from __future__ import annotations

from typing import cast

from captum.attr import InputXGradient, IntegratedGradients, Saliency
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr._around_captum import largest_magnitude, signed_sum, sum_of_magnitudes

__all__ = ["input_x_gradient", "integrated_gradients", "saliency"]


def saliency(model: Module, inputs: Tensor, target: TargetType) -> Tensor:
    """Gradients (Simonyan et al. 2014), the largest magnitude of the channels (section 3.1)."""
    return largest_magnitude(cast(Tensor, Saliency(model).attribute(inputs, target, abs=False)))


def input_x_gradient(model: Module, inputs: Tensor, target: TargetType) -> Tensor:
    """Input times gradient (Shrikumar et al. 2016), signed contributions summed over channels."""
    return signed_sum(cast(Tensor, InputXGradient(model).attribute(inputs, target=target)))


def integrated_gradients(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    n_steps: int = 50,
    internal_batch_size: int = 8,
) -> Tensor:
    """Integrated gradients (Sundararajan et al. 2017) from zero, magnitudes summed over channels.

    Reduced as the package ``saliency`` of its authors does to draw them.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_steps (int, optional): Steps of the path. Default: 50.
        internal_batch_size (int, optional): Largest number of inputs in one forward pass, at least
            N. Default: 8.

    Returns:
        Tensor: N x 1 x H x W.
    """
    attributions = IntegratedGradients(model).attribute(
        inputs,
        target=target,
        n_steps=n_steps,
        internal_batch_size=max(internal_batch_size, len(inputs)),
    )
    return sum_of_magnitudes(attributions)
