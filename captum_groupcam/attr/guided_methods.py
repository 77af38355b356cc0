"""Captum's methods that change what ReLU passes back, the largest magnitude of the channels."""

from __future__ import annotations

from typing import cast

import torch
from captum.attr import Deconvolution, GuidedBackprop, LayerAttribution
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _compiled
from captum_groupcam._captum import TargetType
from captum_groupcam.attr._around_captum import largest_magnitude
from captum_groupcam.attr._network_copy import clipped, linked_copy, replace_modules
from captum_groupcam.attr._unguided import only_modules_guided
from captum_groupcam.attr.grad_cam import GradCAM
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["deconvolution", "guided_backprop", "guided_grad_cam"]


def guided_backprop(model: Module, inputs: Tensor, target: TargetType) -> Tensor:
    """Guided backpropagation (Springenberg et al. 2015), the largest magnitude of the channels.

    Reduced as Simonyan et al. 2014 (section 3.1) reduce gradients. Modules of ReLU and ReLU6 are
    guided, also where one is used several times; the function :func:`torch.nn.functional.relu`
    cannot be. Other activations pass back plain gradients.

    Returns:
        Tensor: N x 1 x H x W.

    Raises:
        ValueError: If the network calls no such module, or computes a ReLU by a function.

    Warns:
        UserWarning: If the network has other activations beside ReLU, such as GELU.
    """
    return largest_magnitude(_passed_back(GuidedBackprop, model, inputs, target))


def deconvolution(model: Module, inputs: Tensor, target: TargetType) -> Tensor:
    """Deconvolution (Zeiler and Fergus 2014), the largest magnitude of the channels.

    Reduced like guided backpropagation, and for networks of the same kind.

    Returns:
        Tensor: N x 1 x H x W.

    Raises:
        ValueError: If the network calls no module of ReLU or ReLU6, or computes one by a function.

    Warns:
        UserWarning: If the network has other activations beside ReLU, such as GELU.
    """
    return largest_magnitude(_passed_back(Deconvolution, model, inputs, target))


def guided_grad_cam(
    model: Module, layer: TargetLayer, inputs: Tensor, target: TargetType
) -> Tensor:
    """Guided backpropagation times Grad-CAM (Selvaraju et al. 2017), reduced like the former."""
    maps = GradCAM(model, layer.module).attribute(
        inputs, target, relu_attributions=True, **layer.keywords
    )
    grad_cam = LayerAttribution.interpolate(maps, inputs.shape[2:], "bilinear")
    return largest_magnitude(_passed_back(GuidedBackprop, model, inputs, target) * grad_cam)


def _passed_back(
    method: type[GuidedBackprop | Deconvolution], model: Module, inputs: Tensor, target: TargetType
) -> Tensor:
    """What Captum's method passes back, on a copy where it would pass over ReLU6."""
    title = "Guided backpropagation" if method is GuidedBackprop else "Deconvolution"
    if any(isinstance(module, torch.nn.ReLU6) for module in model.modules()):
        model = linked_copy(model)
        replace_modules(model, clipped)
    if not any(isinstance(module, torch.nn.ReLU) for module in model.modules()):
        raise ValueError(f"{title} changes what ReLU modules pass back; this network has none.")
    model = cast(Module, _compiled.eager(model))
    with _compiled.uncompiled(), only_modules_guided(model, title):
        return cast(Tensor, method(model).attribute(inputs, target))
