"""The random masks of RISE (arXiv 1806.07421, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RandomMasks"]


@dataclass(frozen=True)
class RandomMasks:
    """The masks of RISE, the same for every sample, kept as the small grids they are made of.

    A mask is its grid of zeros and ones, upsampled linearly to one cell more than covers the input
    along each axis, of which a window of the input's size is seen.

    Args:
        grids (Tensor): G x grid, zeros and ones, floating point.
        shifts (Tensor): G x D, where the window begins along each axis, as a share of a cell in
            [0, 1), so that inputs of several sizes see the same.
        n_samples (int): N, the number of samples.

    Examples::

        >>> import torch
        >>> masks = RandomMasks(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5]]), n_samples=1)
        >>> masks.render(torch.tensor([0]), torch.tensor([0]), size=(4,))
        tensor([[[0.0000, 0.3333, 0.6667, 1.0000]]])
    """

    grids: Tensor
    shifts: Tensor
    n_samples: int

    @classmethod
    def draw(
        cls,
        n_masks: int,
        grid_size: Sequence[int],
        probability: float,
        generator: torch.Generator,
        *,
        n_samples: int,
        like: Tensor,
    ) -> RandomMasks:
        """Draws masks, the same on every device.

        Args:
            n_masks (int): Number of masks, G.
            grid_size (sequence of int): Cells along each axis.
            probability (float): Probability that a cell is one.
            generator (torch.Generator): Where chance comes from.
            n_samples (int): N, the number of samples.
            like (Tensor): Gives the device and the dtype; of any shape.

        Returns:
            RandomMasks: G masks, the same for each of N samples.
        """
        device = generator.device
        chance = torch.rand(n_masks, *grid_size, generator=generator, device=device)
        shifts = torch.rand(n_masks, len(grid_size), generator=generator, device=device)
        dtype = torch.promote_types(like.dtype, torch.float32)
        grids = (chance < probability).to(like.device, dtype)
        return cls(grids, shifts.to(like.device, torch.float64), n_samples)

    @property
    def informative(self) -> Tensor:
        """N x G booleans: a grid of zeros adds nothing, whatever its score."""
        return self.grids.flatten(1).any(1).expand(self.n_samples, -1)

    def render(
        self,
        samples: Tensor,  # noqa: ARG002 (every sample sees the same masks)
        masks: Tensor,
        size: Sequence[int],
        *,
        normalized: bool = True,  # noqa: ARG002 (they are in [0, 1] as they are)
    ) -> Tensor:
        """Renders Q masks: see :class:`~captum_groupcam.masking.masks.MaskSource`."""
        rendered = self.grids[masks]
        with torch.autocast(rendered.device.type, enabled=False):
            # Each step interpolates the first axis of the grid and puts it last.
            for length, shift in zip(size, self.shifts[masks].unbind(1), strict=True):
                weights = _interpolation(length, rendered.shape[1], shift).to(rendered)
                rendered = torch.einsum("qg...,qpg->q...p", rendered, weights)
        return rendered.unsqueeze(1)


def _interpolation(length: int, cells: int, shifts: Tensor) -> Tensor:
    """Weights of a grid's cells for each position of a shifted window: Q x length x cells."""
    # Linear interpolation to (cells + 1) times a cell's size, corners not aligned.
    cell = -(-length // cells)  # pixels, rounded up
    start = (shifts * cell).floor()
    pixels = torch.arange(length, device=shifts.device, dtype=shifts.dtype)
    positions = (start.unsqueeze(1) + pixels + 0.5) * cells / ((cells + 1) * cell) - 0.5
    positions = positions.clamp(0, cells - 1).unsqueeze(-1)
    centres = torch.arange(cells, device=shifts.device, dtype=shifts.dtype)
    return (1 - (positions - centres).abs()).clamp(min=0)
