"""What is done to a finished map, at no query but those that are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from captum.attr import Saliency
from torch import Tensor
from torch.nn import Module

from captum_groupcam.attr.maps import divide_by_maximum
from captum_groupcam.masking.baselines import gaussian_blur
from captum_groupcam.masking.masks import upsample
from captum_groupcam.masking.targets import TargetType
from captum_groupcam.methods import METHODS

from .steps import Probe

__all__ = ["detail", "interleaved", "smoothed", "with_prior"]


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Blurs maps by a Gaussian of a standard deviation in pixels; 0 leaves them as they are."""
    return gaussian_blur(maps, 2 * round(2 * sigma) + 1, sigma) if sigma else maps


def with_prior(maps: Tensor, probe: Probe, share: float) -> Tensor:
    """Adds a share of Grad-CAM, both with a maximum of one.

    A very small share ranks only what the map leaves level: its flat rest.
    """
    if not share:
        return maps
    return divide_by_maximum(maps) + share * divide_by_maximum(upsample(probe.grad_cam, probe.size))


def detail(
    model: Module, inputs: Tensor, target: TargetType, *, sigma: float, copies: int = 1
) -> Tensor:
    """Where pixels matter, N x 1 x H x W: magnitudes of the input's gradient, blurred, mean one.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        sigma (float): Pixels by which the magnitudes are blurred.
        copies (int): Passes forth and back to the input, three queries each: more than one are of
            noisy copies of the image, as in SmoothGrad. Default: 1, of the image itself.
    """
    if copies == 1:
        gradients = cast(Tensor, Saliency(model).attribute(inputs, target))
    else:
        gradients = METHODS["smooth_grad"](model, n_samples=copies)(inputs, target)
    blurred = smoothed(gradients.detach().sum(1, keepdim=True), sigma)
    mean = blurred.mean((2, 3), keepdim=True)
    return blurred / torch.where(mean > 0, mean, 1)


def interleaved(maps: Sequence[Tensor]) -> Tensor:
    """Four maps (N x K x h x w) as one of twice their height and width.

    Args:
        maps (sequence of Tensor): Of the left and right cells of the upper rows, then of the lower.
    """
    # To F.pixel_shuffle, neighbouring channels are the cells of a square.
    return F.pixel_shuffle(torch.stack(list(maps), 2).flatten(1, 2), 2)
