"""Controls: maps and masks that say nothing of the network, to compare methods with."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from captum_groupcam.augmentation import GroupCAMBlur
from captum_groupcam.masking.targets import TargetType
from captum_groupcam.methods import METHODS, Method

__all__ = ["CONTROLS", "ShiftedBlur", "centre", "edges", "random", "shift"]


def random(_model: Module, inputs: Tensor, _target: TargetType, *, seed: int = 0) -> Tensor:
    """A control: uniform noise, seeded with the sample itself."""
    maps = []
    for sample in inputs.cpu():
        fingerprint = zlib.crc32(sample.float().contiguous().numpy().tobytes())
        generator = torch.Generator().manual_seed(seed + fingerprint)
        maps.append(torch.rand(1, *sample.shape[1:], generator=generator))
    return torch.stack(maps).to(inputs)


def centre(_model: Module, inputs: Tensor, _target: TargetType, *, sigma: float = 0.25) -> Tensor:
    """A control: a Gaussian in the middle, its standard deviation a share of each side."""
    maps = inputs.new_ones(len(inputs), 1, 1, 1)
    for axis, size in enumerate(inputs.shape[2:], start=2):
        position = (torch.arange(size, device=inputs.device) + 0.5) / size - 0.5
        shape = [1, 1, 1, 1]
        shape[axis] = size
        maps = maps * torch.exp(-0.5 * (position / sigma) ** 2).view(shape)
    return maps


def edges(_model: Module, inputs: Tensor, _target: TargetType) -> Tensor:
    """A control: the magnitude of Sobel's gradient of the mean of the channels."""
    grey = F.pad(inputs.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    sobel = inputs.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    gradients = F.conv2d(grey, torch.stack([sobel, sobel.T]).unsqueeze(1))
    return gradients.square().sum(1, keepdim=True).sqrt()


def shift(masks: Tensor, offsets: Tensor) -> Tensor:
    """Moves each mask; what leaves the image comes in again at the other side.

    Area and shape stay the same (up to the cut at the border), only the place is another.

    Args:
        masks (Tensor): N x 1 x spatial.
        offsets (Tensor): N x number of spatial dimensions, integers: positions to move by.

    Returns:
        Tensor: N x 1 x spatial.

    Examples::

        >>> import torch
        >>> shift(torch.tensor([[[True, False, False]]]), torch.tensor([[2]]))
        tensor([[[False, False,  True]]])
    """
    for axis, offset in enumerate(offsets.unbind(1), start=2):
        size = masks.shape[axis]
        sources = (torch.arange(size, device=masks.device) - offset.unsqueeze(1)) % size
        shape = [len(masks)] + [1] * (masks.dim() - 1)
        shape[axis] = size
        masks = masks.take_along_dim(sources.view(shape), axis)
    return masks


class ShiftedBlur(GroupCAMBlur):
    """A control: Group-CAM's masks at random places.

    Each mask of :class:`GroupCAMBlur` is moved by :func:`shift`, so area and coherence are the
    same and only the place says nothing.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> blur = ShiftedBlur(net, net[0], n_groups=4)
        >>> blur(torch.rand(2, 3, 16, 16), torch.tensor([3, 1])).shape
        torch.Size([2, 3, 16, 16])
    """

    def masks(self, images: Tensor, labels: Tensor, baseline: Tensor, draws: np.ndarray) -> Tensor:
        """Group-CAM's masks, moved."""
        offsets = np.floor(draws[:, 1:] * images.shape[2:]).astype(np.int64)
        masks = super().masks(images, labels, baseline, draws)
        return shift(masks, torch.from_numpy(offsets).to(masks.device))


#: The controls among the methods, by name.
#:
#: :meta hide-value:
CONTROLS: dict[str, Method] = {
    control.name: replace(control, shares_batches=True)
    for control in (
        Method("random", "Noise", random, passes=lambda: 0, kind="control"),
        Method("centre", "A dot in the middle", centre, passes=lambda: 0, kind="control"),
        Method("edges", "Edges of the image", edges, passes=lambda: 0, kind="control"),
    )
}
METHODS.update(CONTROLS)
