"""Masks: denoise, upsample, normalise; and the source that renders a slice of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_groupcam.masking.checks import check_between

__all__ = ["LayerMasks", "MaskSource", "check_percentile", "denoise", "normalize", "upsample"]

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def denoise(maps: Tensor, percentile: float) -> Tensor:
    r"""Keeps what exceeds a percentile of its own map, the rest is zero (Group-CAM, eq. 4).

    Args:
        maps (Tensor): N x G x spatial.
        percentile (float): :math:`\theta` in [0, 100); interpolated linearly between positions.

    Returns:
        Tensor: Maps of the same shape: m where m > percentile of its map, by more than rounding,
        else 0.

    Raises:
        TypeError: If the percentile is not a number.
        ValueError: If it is outside [0, 100).

    Examples::

        >>> import torch
        >>> denoise(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), percentile=50.0)
        tensor([[[0., 0., 3., 4.]]])
    """
    check_percentile(percentile)
    flat = maps.flatten(2)
    position = percentile / 100 * (flat.shape[-1] - 1)
    below = int(position)
    # torch.quantile refuses more than 2 ** 24 values, a few masks at a large input's resolution.
    ranked = flat.sort(dim=-1).values
    above = ranked[..., min(below + 1, flat.shape[-1] - 1)]
    threshold = torch.lerp(ranked[..., below], above, position - below).unsqueeze(-1)
    # Upsampled maps have plateaus, of which rounding would keep some positions and drop others.
    rounding = 8 * torch.finfo(maps.dtype).eps * ranked[..., -1:].abs()
    return torch.where(flat > threshold + rounding, flat, 0).view_as(maps)


def check_percentile(percentile: float | None) -> None:
    """Checks what is denoised by, before anything is.

    Args:
        percentile (float or None): In [0, 100), or None.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is outside [0, 100).

    Examples::

        >>> check_percentile(None)
    """
    if percentile is not None:
        hint = " None turns denoising off."
        check_between("denoise_percentile", percentile, 0, 100, ends="[)", hint=hint)


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolates maps linearly to another spatial size.

    Linear, bilinear or trilinear by the number of spatial dimensions, corners not aligned.

    Args:
        maps (Tensor): N x G x spatial, with one to three spatial dimensions.
        size (sequence of int): The other spatial size.

    Returns:
        Tensor: N x G x size.

    Examples::

        >>> import torch
        >>> upsample(torch.tensor([[[0.0, 1.0]]]), (4,))
        tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """
    if maps.shape[2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode=_MODES[maps.dim() - 2], align_corners=False)


def normalize(maps: Tensor) -> Tensor:
    """Min-max normalises each map to [0, 1]; a flat map becomes zero.

    Args:
        maps (Tensor): N x G x spatial.

    Returns:
        Tensor: Maps of the same shape.

    Examples::

        >>> import torch
        >>> normalize(torch.tensor([[[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]]))
        tensor([[[0.0000, 0.5000, 1.0000],
                 [0.0000, 0.0000, 0.0000]]])
    """
    flat = maps.flatten(2)
    low, high = flat.amin(-1, keepdim=True), flat.amax(-1, keepdim=True)
    extent = high - low
    return ((flat - low) / torch.where(extent > 0, extent, 1)).view_as(maps)


class MaskSource(Protocol):
    """Masks for a batch of samples, kept small and rendered a slice at a time."""

    @property
    def informative(self) -> Tensor:
        """N x G booleans: which masks are worth a query."""
        ...

    def render(
        self, samples: Tensor, masks: Tensor, size: Sequence[int], *, normalized: bool = True
    ) -> Tensor:
        """Renders some masks at an input's spatial size.

        Args:
            samples (Tensor): Q indices of samples.
            masks (Tensor): Q indices of masks, one of each of the samples.
            size (sequence of int): Spatial size.
            normalized (bool, optional): Whether the masks are brought to [0, 1]. Default: True.

        Returns:
            Tensor: Q x 1 x size.
        """
        ...


@dataclass(frozen=True)
class LayerMasks:
    """Masks made of maps at a layer's resolution, where they stay until they are rendered.

    Args:
        maps (Tensor): N x G x spatial, finite.
        denoise_percentile (float, optional): Denoises the masks once more after they are upsampled
            (see :func:`denoise`), which cuts them sharply at the input's resolution; None leaves
            them smooth. Default: None.

    Examples::

        >>> import torch
        >>> masks = LayerMasks(torch.tensor([[[0.0, 1.0], [2.0, 2.0]]]))
        >>> masks.informative
        tensor([[ True, False]])
        >>> masks.render(torch.tensor([0]), torch.tensor([0]), size=(4,))
        tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """

    maps: Tensor
    denoise_percentile: float | None = None

    @property
    def informative(self) -> Tensor:
        """N x G booleans: a flat map carries no information."""
        flat = self.maps.flatten(2)
        return flat.amax(-1) > flat.amin(-1)

    def render(
        self, samples: Tensor, masks: Tensor, size: Sequence[int], *, normalized: bool = True
    ) -> Tensor:
        """Renders Q masks at an input's size, Q x 1 x size (see :class:`MaskSource`)."""
        rendered = upsample(self.maps[samples, masks].unsqueeze(1), size)
        if self.denoise_percentile is not None:
            rendered = denoise(rendered, self.denoise_percentile)
        return normalize(rendered) if normalized else rendered
