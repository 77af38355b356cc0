"""Captum's own methods of the input, each reduced to one channel as its paper does."""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from captum.attr import (
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr.grad_cam import GradCAM
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = [
    "guided_backprop",
    "guided_grad_cam",
    "input_x_gradient",
    "integrated_gradients",
    "occlusion",
    "smooth_grad",
]


def guided_backprop(model: Module, inputs: Tensor, target: TargetType) -> Tensor:
    """Guided backpropagation (Springenberg et al. 2015), the largest magnitude of the channels.

    Reduced as Simonyan et al. 2014 (section 3.1) reduce gradients. Modules of ReLU and ReLU6 are
    guided, also where one is used several times; the function :func:`torch.nn.functional.relu`
    cannot be.

    Returns:
        Tensor: N x 1 x H x W.

    Raises:
        ValueError: If the network has no such module.
    """
    return _largest_magnitude(guided_gradients(model, inputs, target))


def guided_grad_cam(
    model: Module, layer: TargetLayer, inputs: Tensor, target: TargetType
) -> Tensor:
    """Guided backpropagation times Grad-CAM (Selvaraju et al. 2017), reduced like the former."""
    maps = GradCAM(model, layer.module).attribute(
        inputs, target, relu_attributions=True, **layer.keywords
    )
    grad_cam = LayerAttribution.interpolate(maps, inputs.shape[2:], "bilinear")
    return _largest_magnitude(guided_gradients(model, inputs, target) * grad_cam)


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
    return _sum_of_magnitudes(attributions)


def smooth_grad(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    n_samples: int = 50,
    noise_level: float = 0.15,
    seed: int = 0,
    internal_batch_size: int = 8,
) -> Tensor:
    """SmoothGrad (Smilkov et al. 2017): gradients averaged over noisy copies of each input.

    The noise's standard deviation is a share of the range of the input's values, 10 % to 20 % in
    the paper. Magnitudes are summed over channels as the package ``saliency`` of the authors does
    to draw them. Every sample gets the same noise, whichever samples stand beside it.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_samples (int, optional): Noisy copies of each input. Default: 50.
        noise_level (float, optional): Standard deviation of the noise, as a share of the range of
            the input's values. Default: 0.15.
        seed (int, optional): Seed of the noise. Default: 0.
        internal_batch_size (int, optional): Copies in one forward pass. Default: 8.

    Returns:
        Tensor: N x 1 x H x W.
    """
    # Captum's noise is float32, whatever the inputs are.
    method = NoiseTunnel(Saliency(lambda noisy: model(noisy.to(inputs.dtype))))
    attributions = []
    for index in range(len(inputs)):
        sample = inputs[index : index + 1]
        _seed(seed, inputs.device)
        attributions.append(
            method.attribute(
                sample,
                nt_type="smoothgrad",
                nt_samples=n_samples,
                nt_samples_batch_size=min(internal_batch_size, n_samples),
                stdevs=float(sample.max() - sample.min()) * noise_level,
                target=_target_of(target, index),
                abs=False,
            )
        )
    return _sum_of_magnitudes(torch.cat(attributions))


def input_x_gradient(model: Module, inputs: Tensor, target: TargetType) -> Tensor:
    """Input times gradient (Shrikumar et al. 2016), signed contributions summed over channels."""
    attributions = InputXGradient(model).attribute(inputs, target=target)
    return cast(Tensor, attributions).sum(1, keepdim=True)


def occlusion(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    window: int | None = None,
    stride: int | None = None,
    internal_batch_size: int = 8,
    show_progress: bool = False,
) -> Tensor:
    """Occlusion (Zeiler and Fergus 2014): how far the output falls when a square is set to zero.

    Signed; all channels are covered at once.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        window (int, optional): Side of the square. Default: None, a seventh of the shorter side
            (32 pixels of 224).
        stride (int, optional): Its step. Default: None, half of the window.
        internal_batch_size (int, optional): Largest number of inputs in one forward pass, at least
            N. Default: 8.
        show_progress (bool, optional): Whether to show a progress bar. Default: False.

    Returns:
        Tensor: N x 1 x H x W.
    """
    window = window or max(min(inputs.shape[2:]) // 7, 1)
    stride = stride or max(window // 2, 1)
    attributions = Occlusion(model).attribute(
        inputs,
        sliding_window_shapes=(inputs.shape[1], window, window),
        strides=(inputs.shape[1], stride, stride),
        target=target,
        perturbations_per_eval=max(internal_batch_size // len(inputs), 1),
        show_progress=show_progress,
    )
    return cast(Tensor, attributions)[:, :1]


class _GuidedReLU6(torch.nn.ReLU):
    """ReLU6 under the type that Captum guides."""

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu6(inputs, self.inplace)


def guided_gradients(model: Module, inputs: Tensor, target: TargetType) -> Tensor:
    """Captum's guided backpropagation, on a copy where it would pass over ReLU6."""
    if any(isinstance(module, torch.nn.ReLU6) for module in model.modules()):
        # The copy is one of the modules only: they share their weights.
        tensors = (*model.parameters(), *model.buffers())
        model = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
        for parent in list(model.modules()):
            for name, child in parent._modules.items():  # named_children() skips second names
                if isinstance(child, torch.nn.ReLU6):
                    setattr(parent, name, _GuidedReLU6(child.inplace))
    if not any(isinstance(module, torch.nn.ReLU) for module in model.modules()):
        raise ValueError(
            "Guided backpropagation changes what ReLU modules pass back; this network has none."
        )
    return cast(Tensor, GuidedBackprop(model).attribute(inputs, target))


def _target_of(target: TargetType, index: int) -> TargetType:
    """The target of one sample."""
    if isinstance(target, list):
        return [target[index]]
    if isinstance(target, Tensor) and target.numel() > 1:
        return target[index : index + 1]
    return target


def _largest_magnitude(attributions: Tensor) -> Tensor:
    return attributions.abs().amax(1, keepdim=True)


def _sum_of_magnitudes(attributions: Tensor) -> Tensor:
    return attributions.abs().sum(1, keepdim=True)


def _seed(seed: int, device: torch.device) -> None:
    """Seeds one device: ``torch.manual_seed`` would also drop the seed that waits for CUDA."""
    generator = torch.default_generator
    if device.type == "cuda":
        generator = torch.cuda.default_generators[device.index or torch.cuda.current_device()]
    generator.manual_seed(seed)
