"""Captum's methods of a layer that have no map of their own, summed over the layer's channels."""

from __future__ import annotations

from captum.attr import InternalInfluence, LayerConductance, LayerGradientXActivation
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr._layer_sum import sum_over_layer
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["internal_influence", "layer_conductance", "layer_gradient_x_activation"]


def layer_gradient_x_activation(
    model: Module, layer: TargetLayer, inputs: Tensor, target: TargetType
) -> Tensor:
    """Activation times gradient, signed contributions summed over the channels of the layer.

    Without its ReLU, HiResCAM (arXiv 2011.08891) is the same map.

    Returns:
        Tensor: N x 1 x H x W.
    """
    method = LayerGradientXActivation(model, layer.module)
    return sum_over_layer(method, layer, inputs, target)


def internal_influence(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_steps: int = 50,
    internal_batch_size: int = 8,
) -> Tensor:
    """Internal influence (Leino et al. 2018): the layer's mean gradient on the way from zero.

    Signed, summed over the channels of the layer. Zero, the baseline, is the mean colour where
    inputs are normalised.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_steps (int, optional): Steps of the path. Default: 50.
        internal_batch_size (int, optional): Largest number of inputs in one forward pass, at least
            N. Default: 8.

    Returns:
        Tensor: N x 1 x H x W.
    """
    return sum_over_layer(
        InternalInfluence(model, layer.module),
        layer,
        inputs,
        target,
        n_steps=n_steps,
        internal_batch_size=max(internal_batch_size, len(inputs)),
    )


def layer_conductance(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_steps: int = 50,
    internal_batch_size: int = 8,
) -> Tensor:
    """Conductance (Dhamdhere et al. 2018): integrated gradients through the units of the layer.

    Signed, summed over the channels of the layer: together they add up to what the output differs
    by from that of zero, the baseline, which is the mean colour where inputs are normalised.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_steps (int, optional): Steps of the path. Default: 50.
        internal_batch_size (int, optional): Largest number of inputs in one forward pass, at least
            2 N. Default: 8.

    Returns:
        Tensor: N x 1 x H x W.
    """
    return sum_over_layer(
        LayerConductance(model, layer.module),
        layer,
        inputs,
        target,
        n_steps=n_steps,
        internal_batch_size=max(internal_batch_size, 2 * len(inputs)),
    )
