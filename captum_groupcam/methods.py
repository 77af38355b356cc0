"""The methods that are compared, through one interface: maps at the resolution of the input."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from captum.attr import (
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from torch import Tensor

from captum_groupcam._method import Factory, Method, Subject, Target, factory
from captum_groupcam.attr._guided import guided_gradients
from captum_groupcam.attr.cam import CAM
from captum_groupcam.attr.grad_cam import GradCAM, GradCAMPlusPlus
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.attr.layer_cam import LayerCAM
from captum_groupcam.attr.rise import RISE
from captum_groupcam.attr.score_cam import ScoreCAM
from captum_groupcam.attr.selective import SelectiveGroupCAM
from captum_groupcam.attr.xrai import XRAI

__all__ = ["GROUPED", "METHODS", "Factory", "Method", "Subject", "Target", "factory"]


def group_cam(subject: Subject, inputs: Tensor, target: Target, **options: Any) -> Tensor:
    """Group-CAM with the paper's defaults; options of :meth:`GroupCAM.attribute`."""
    return _on_layer(GroupCAM, subject, inputs, target, **options)


def group_cam_gradient_free(
    subject: Subject, inputs: Tensor, target: Target, **options: Any
) -> Tensor:
    """Group-CAM with all channels weighing the same; options of :meth:`GroupCAM.attribute`."""
    return _on_layer(GroupCAM, subject, inputs, target, gradient_free=True, **options)


def group_cam_selective(subject: Subject, inputs: Tensor, target: Target, **options: Any) -> Tensor:
    """Group-CAM refined, the best map selected; options of :meth:`SelectiveGroupCAM.attribute`."""
    return _on_layer(SelectiveGroupCAM, subject, inputs, target, **options)


def grad_cam(subject: Subject, inputs: Tensor, target: Target) -> Tensor:
    """Grad-CAM with the ReLU of its paper (Selvaraju et al. 2017, eq. 2)."""
    return _on_layer(GradCAM, subject, inputs, target, relu_attributions=True)


def grad_cam_plus_plus(subject: Subject, inputs: Tensor, target: Target, **options: Any) -> Tensor:
    """Grad-CAM++, positive as in its paper; options of :meth:`LayerFormula.attribute`."""
    options = {"relu_attributions": True, **options}
    return _on_layer(GradCAMPlusPlus, subject, inputs, target, **options)


def layer_cam(subject: Subject, inputs: Tensor, target: Target, **options: Any) -> Tensor:
    """LayerCAM, positive as in its paper; options of :meth:`LayerFormula.attribute`."""
    options = {"relu_attributions": True, **options}
    return _on_layer(LayerCAM, subject, inputs, target, **options)


def cam(subject: Subject, inputs: Tensor, target: Target, **options: Any) -> Tensor:
    """CAM, signed as in its paper; options of :meth:`LayerFormula.attribute`."""
    return _on_layer(CAM, subject, inputs, target, **options)


def score_cam(subject: Subject, inputs: Tensor, target: Target, **options: Any) -> Tensor:
    """Score-CAM with the paper's defaults; options of :meth:`ScoreCAM.attribute`."""
    return _on_layer(ScoreCAM, subject, inputs, target, **options)


def rise(subject: Subject, inputs: Tensor, target: Target, **options: Any) -> Tensor:
    """RISE with the paper's defaults; options of :meth:`RISE.attribute`."""
    return cast(Tensor, RISE(subject.model).attribute(inputs, target, **options))


def xrai(subject: Subject, inputs: Tensor, target: Target, **options: Any) -> Tensor:
    """XRAI; options of :meth:`XRAI.attribute`."""
    return XRAI(subject.model).attribute(inputs, target, **options)


def guided_backprop(subject: Subject, inputs: Tensor, target: Target) -> Tensor:
    """Guided backpropagation (Springenberg et al. 2015), the largest magnitude of the channels.

    Reduced as Simonyan et al. 2014 (section 3.1) reduce gradients. Modules of ReLU and ReLU6 are
    guided, also where one is used several times; the function :func:`torch.nn.functional.relu`
    cannot be.

    Raises:
        ValueError: If the network has no such module.
    """
    return _largest_magnitude(guided_gradients(subject.model, inputs, target))


def guided_grad_cam(subject: Subject, inputs: Tensor, target: Target) -> Tensor:
    """Guided backpropagation times Grad-CAM (Selvaraju et al. 2017), reduced like the former."""
    guided = guided_gradients(subject.model, inputs, target)
    return _largest_magnitude(guided * grad_cam(subject, inputs, target))


def integrated_gradients(
    subject: Subject,
    inputs: Tensor,
    target: Target,
    *,
    n_steps: int = 50,
    internal_batch_size: int = 8,
) -> Tensor:
    """Integrated gradients (Sundararajan et al. 2017) from zero, magnitudes summed over channels.

    Reduced as the package ``saliency`` of its authors does to draw them.
    """
    attributions = IntegratedGradients(subject.model).attribute(
        inputs,
        target=target,
        n_steps=n_steps,
        internal_batch_size=max(internal_batch_size, len(inputs)),
    )
    return _sum_of_magnitudes(attributions)


def smooth_grad(
    subject: Subject,
    inputs: Tensor,
    target: Target,
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
    """
    # Captum's noise is float32, whatever the inputs are.
    method = NoiseTunnel(Saliency(lambda noisy: subject.model(noisy.to(inputs.dtype))))
    attributions = []
    for index in range(len(inputs)):
        sample = inputs[index : index + 1]
        torch.manual_seed(seed)  # restored by the method's caller
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


def input_x_gradient(subject: Subject, inputs: Tensor, target: Target) -> Tensor:
    """Input times gradient (Shrikumar et al. 2016), signed contributions summed over channels."""
    attributions = InputXGradient(subject.model).attribute(inputs, target=target)
    return cast(Tensor, attributions).sum(1, keepdim=True)


def occlusion(
    subject: Subject,
    inputs: Tensor,
    target: Target,
    *,
    window: int | None = None,
    stride: int | None = None,
    internal_batch_size: int = 8,
    show_progress: bool = False,
) -> Tensor:
    """Occlusion (Zeiler and Fergus 2014): how far the output falls when a square is set to zero.

    Signed; all channels are covered at once.

    Args:
        subject (Subject): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        window (int, optional): Side of the square. Default: None, a seventh of the shorter side
            (32 pixels of 224).
        stride (int, optional): Its step. Default: None, half of the window.
        internal_batch_size (int, optional): Largest number of inputs in one forward pass, at least
            N. Default: 8.
        show_progress (bool, optional): Whether to show a progress bar. Default: False.
    """
    window = window or max(min(inputs.shape[2:]) // 7, 1)
    stride = stride or max(window // 2, 1)
    attributions = Occlusion(subject.model).attribute(
        inputs,
        sliding_window_shapes=(inputs.shape[1], window, window),
        strides=(inputs.shape[1], stride, stride),
        target=target,
        perturbations_per_eval=max(internal_batch_size // len(inputs), 1),
        show_progress=show_progress,
    )
    return cast(Tensor, attributions)[:, :1]


def random(_subject: Subject, inputs: Tensor, _target: Target, *, seed: int = 0) -> Tensor:
    """A control: uniform noise, seeded with the sample itself."""
    maps = []
    for sample in inputs.cpu():
        fingerprint = zlib.crc32(sample.float().contiguous().numpy().tobytes())
        generator = torch.Generator().manual_seed(seed + fingerprint)
        maps.append(torch.rand(1, *sample.shape[1:], generator=generator))
    return torch.stack(maps).to(inputs)


def centre(_subject: Subject, inputs: Tensor, _target: Target, *, sigma: float = 0.25) -> Tensor:
    """A control: a Gaussian in the middle, its standard deviation a share of each side."""
    maps = inputs.new_ones(len(inputs), 1, 1, 1)
    for axis, size in enumerate(inputs.shape[2:], start=2):
        position = (torch.arange(size, device=inputs.device) + 0.5) / size - 0.5
        shape = [1, 1, 1, 1]
        shape[axis] = size
        maps = maps * torch.exp(-0.5 * (position / sigma) ** 2).view(shape)
    return maps


def edges(_subject: Subject, inputs: Tensor, _target: Target) -> Tensor:
    """A control: the magnitude of Sobel's gradient of the mean of the channels."""
    grey = F.pad(inputs.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    sobel = inputs.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    gradients = F.conv2d(grey, torch.stack([sobel, sobel.T]).unsqueeze(1))
    return gradients.square().sum(1, keepdim=True).sqrt()


#: Every method of the comparison, by name. ``METHODS[name](model, layer)(inputs, target)`` gives
#: N x 1 x H x W and leaves no trace: neither on the network and the inputs nor on the global state.
METHODS: dict[str, Factory] = {
    explain.__name__: factory(explain)
    for explain in (
        group_cam,
        group_cam_gradient_free,
        group_cam_selective,
        grad_cam,
        grad_cam_plus_plus,
        layer_cam,
        cam,
        score_cam,
        rise,
        xrai,
        guided_backprop,
        guided_grad_cam,
        integrated_gradients,
        smooth_grad,
        input_x_gradient,
        occlusion,
        random,
        centre,
        edges,
    )
}

#: The methods whose map is a sum over groups, and what makes them of :class:`GroupCAM`.
GROUPED: dict[str, dict[str, Any]] = {
    "group_cam": {},
    "group_cam_gradient_free": {"gradient_free": True},
}


def _on_layer(
    method: Callable[..., Any], subject: Subject, inputs: Tensor, target: Target, **options: Any
) -> Tensor:
    if subject.layer is None:
        raise ValueError(f"{method.__name__} explains a layer: give one.")
    if subject.reshape_transform is not None:
        options["reshape_transform"] = subject.reshape_transform
    attributions = method(subject.model, subject.layer).attribute(
        inputs, target, attribute_to_layer_input=subject.attribute_to_layer_input, **options
    )
    return cast(Tensor, LayerAttribution.interpolate(attributions, inputs.shape[2:], "bilinear"))


def _target_of(target: Target, index: int) -> Target:
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
