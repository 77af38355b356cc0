"""Captum's methods that hide one part of the input at a time and look at the output."""

from __future__ import annotations

from typing import cast

from captum.attr import FeatureAblation, Occlusion
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr._around_captum import by_regions, scores_of
from captum_groupcam.attr.superpixels import Regions

__all__ = ["feature_ablation", "occlusion"]


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


def feature_ablation(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    n_segments: int = 50,
    regions: Regions = "slic",
    internal_batch_size: int = 8,
    show_progress: bool = False,
) -> Tensor:
    """Feature ablation: how far the output falls when a superpixel is set to zero.

    As Zeiler and Fergus 2014 do it with squares. Signed; all channels of a superpixel are hidden at
    once. Zero is the mean colour where inputs are normalised.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_segments (int, optional): About how many superpixels an image is divided into.
            Default: 50.
        regions (str, optional): "slic" or "grid", see
            :func:`~captum_groupcam.attr.superpixels.superpixels`. Default: "slic".
        internal_batch_size (int, optional): Largest number of inputs in one forward pass.
            Default: 8.
        show_progress (bool, optional): Whether to show a progress bar. Default: False.

    Returns:
        Tensor: N x 1 x H x W.
    """
    return by_regions(
        FeatureAblation(scores_of(model, inputs.dtype)).attribute,
        inputs,
        target,
        (n_segments, regions),
        perturbations_per_eval=internal_batch_size,
        show_progress=show_progress,
    )
