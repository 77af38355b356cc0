"""What class activation maps share: sums and principal components of channels, scale, edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_groupcam.masking.baselines import gaussian_blur
from captum_groupcam.masking.call import without_rounding

__all__ = [
    "divide_by_maximum",
    "guided_filter",
    "mean_gradients",
    "principal_component",
    "sharpened",
    "weighted_sum",
    "with_positions",
]


def weighted_sum(activations: Tensor, weights: Tensor) -> Tensor:
    r"""Sums the channels of a layer by their weights, :math:`\sum_k w_k A_k`.

    Args:
        activations (Tensor): N x K x spatial, the activations A_k.
        weights (Tensor): N x K, the weights w_k.

    Returns:
        Tensor: N x 1 x spatial.

    Examples::

        >>> import torch
        >>> weighted_sum(torch.tensor([[[1.0, 2.0], [3.0, 1.0]]]), torch.tensor([[1.0, -1.0]]))
        tensor([[[-2.,  1.]]])
    """
    with torch.autocast(activations.device.type, enabled=False):
        maps = weights.unsqueeze(1) @ activations.flatten(2)
    return maps.view(len(maps), 1, *activations.shape[2:])


def mean_gradients(gradients: Tensor) -> Tensor:
    """Grad-CAM's weights of channels; zero where nothing but rounding is left of the mean.

    Args:
        gradients (Tensor): N x K x spatial, those of the output with respect to a layer.

    Returns:
        Tensor: N x K.

    Examples::

        >>> import torch
        >>> mean_gradients(torch.tensor([[[1.0, 2.0], [3.0, -3.0]]]))
        tensor([[1.5000, 0.0000]])
    """
    positions = gradients.flatten(2)
    return without_rounding(positions.mean(2), positions.abs().mean(2))


def principal_component(maps: Tensor) -> Tensor:
    """Projects the channels of each sample onto the direction in which they vary most.

    The positions are the observations, the channels the variables. The sign, which a principal
    component does not have, is that by which the result goes along with the sum of the channels.

    Args:
        maps (Tensor): N x K x spatial.

    Returns:
        Tensor: N x 1 x spatial, with mean zero; zero where all positions are alike.

    Raises:
        ValueError: If there is one position: nothing varies.

    Examples::

        >>> import torch
        >>> principal_component(torch.tensor([[[3.0, 0.0, 0.0], [4.0, 0.0, 0.0]]]))
        tensor([[[ 3.3333, -1.6667, -1.6667]]])
    """
    with torch.autocast(maps.device.type, enabled=False):
        channels = with_positions(maps).flatten(2)
        centred = without_rounding(channels - channels.mean(2, keepdim=True), channels)
        axes = torch.linalg.svd(centred, full_matrices=False).U[..., 0]
    signs = torch.where(axes.sum(1, keepdim=True) < 0, -1, 1)
    return weighted_sum(centred.view_as(maps), axes * signs)


def with_positions(maps: Tensor) -> Tensor:
    """Passes maps on, if there are positions to compare.

    Args:
        maps (Tensor): N x K x spatial.

    Returns:
        Tensor: The maps, N x K x spatial.

    Raises:
        ValueError: If there is one position.

    Examples::

        >>> import torch
        >>> with_positions(torch.zeros(2, 8, 7, 7)).shape
        torch.Size([2, 8, 7, 7])
    """
    if maps.shape[2:].numel() < 2:
        raise ValueError(
            f"The layer has one position, its shape is {tuple(maps.shape)}: a principal component "
            "is what varies between positions. Choose an earlier layer, before the pooling."
        )
    return maps


def divide_by_maximum(maps: Tensor) -> Tensor:
    """Divides the maps of each sample by their maximum, if that is positive.

    Args:
        maps (Tensor): N x M x spatial.

    Returns:
        Tensor: Maps of the same shape.

    Examples::

        >>> import torch
        >>> divide_by_maximum(torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]))
        tensor([[[0.5000, 1.0000]],
        <BLANKLINE>
                [[0.0000, 0.0000]]])
    """
    top = maps.flatten(1).amax(1).view(-1, *(1 for _ in maps.shape[1:]))
    return maps / torch.where(top > 0, top, 1)


def guided_filter(maps: Tensor, images: Tensor, radius: int, epsilon: float = 0.01) -> Tensor:
    """Lets maps follow the edges of the image: in each window they are a linear function of it.

    Source: He, Sun and Tang, "Guided Image Filtering" (2010), eq. 4 to 8. What falls below zero is
    cut off.

    Args:
        maps (Tensor): N x M x spatial.
        images (Tensor): N x C x spatial; the mean over channels, with unit variance, is the guide.
        radius (int): Half the side of the windows in pixels; 0 leaves maps as they are.
        epsilon (float, optional): Variance of the guide below which a window counts as flat.
            Default: 0.01.

    Returns:
        Tensor: N x M x spatial.

    Examples::

        >>> import torch
        >>> edge = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
        >>> guided_filter(torch.tensor([[[0.0, 0.2, 0.8, 1.0]]]), edge, radius=1).round(decimals=1)
        tensor([[[0.1000, 0.1000, 0.9000, 0.9000]]])
    """
    if not radius:
        return maps
    guide = images.mean(1, keepdim=True).to(maps)
    guide = guide - guide.flatten(1).mean(1).view(-1, *(1 for _ in guide.shape[1:]))
    guide = without_rounding(guide, images.abs().to(maps))
    deviation = guide.flatten(1).std(1).view(-1, *(1 for _ in guide.shape[1:]))
    guide = guide / torch.where(deviation > 0, deviation, 1)

    def mean(values: Tensor) -> Tensor:
        for axis in range(2, values.dim()):
            values = _mean_along(values, axis, radius)
        return values

    covariance = mean(guide * maps) - mean(guide) * mean(maps)
    variance = mean(guide * guide) - mean(guide).square()
    slope = covariance / (variance + epsilon)
    offset = mean(maps) - slope * mean(guide)
    return (mean(slope) * guide + mean(offset)).relu()


def sharpened(maps: Tensor, gradients: Tensor, sigma: float, power: float) -> Tensor:
    """Multiplies maps by a power of the blurred magnitudes of the input's gradient.

    Args:
        maps (Tensor): N x 1 x spatial.
        gradients (Tensor): N x C x spatial. Where they are zero everywhere, they say nothing, and
            the map stays.
        sigma (float): Standard deviation of the blur in pixels.
        power (float): The power, positive.

    Returns:
        Tensor: N x 1 x spatial.

    Examples::

        >>> import torch
        >>> gradients = torch.tensor([[[4.0, 0.0, 1.0]]])
        >>> sharpened(torch.ones(1, 1, 3), gradients, sigma=0.1, power=0.5)
        tensor([[[1.0000, 0.0000, 0.5000]]])
    """
    magnitudes = gaussian_blur(
        gradients.abs().sum(1, keepdim=True), 2 * round(2 * sigma) + 1, sigma
    )
    known = magnitudes.flatten(1).any(1).view(-1, *(1 for _ in maps.shape[1:]))
    return maps * torch.where(known, divide_by_maximum(magnitudes) ** power, 1)


def _mean_along(values: Tensor, axis: int, radius: int) -> Tensor:
    """The mean over windows along one axis, cut off at the border."""
    moved = values.movedim(axis, -1)
    radius = min(radius, moved.shape[-1] - 1)
    means = F.avg_pool1d(moved.flatten(1, -2), 2 * radius + 1, 1, radius, count_include_pad=False)
    return means.view_as(moved).movedim(-1, axis)
