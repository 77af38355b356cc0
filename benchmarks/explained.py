"""What a measure gets to see: samples, the maps that explain them, and where the objects are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["Explain", "Explained"]

#: Explains inputs (N x C x H x W) for their targets (N) with the model it is given, which may be a
#: copy with other weights, so it looks its layer up in that model; returns N x 1 x H x W.
Explain: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Explained:
    """Samples with their maps, checked once for all measures.

    Args:
        model (nn.Module): The network that was explained, in evaluation mode; returns raw class
            scores, N x classes.
        inputs (Tensor): N x C x H x W, as the model takes them.
        targets (Tensor): N class indices.
        maps (Tensor): The explanations, N x 1 x H x W.
        masks (Tensor, optional): Which pixels belong to objects of the target class: boolean,
            N x 1 x H x W. Default: None.
        boxes (sequence of Tensor, optional): Instead of masks, the objects' boxes: one tensor a
            sample, K x 4, ``x1, y1, x2, y2`` in pixels of the input. Default: None.
        explain (callable, optional): For measures that explain again, with another network or for
            another class: see :data:`Explain`. Default: None.
        seed (int, optional): Seed of everything random: subsets, ties, noise. Every sample starts
            from it, so its values do not depend on the samples beside it. Default: 0.

    Raises:
        ValueError: If shapes do not fit, a map contains NaN (the message names the sample), a
            sample has nothing to hit, a target is out of range or the model is in training mode.
        TypeError: If targets are not integers or masks are not boolean.
    """

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    maps: Tensor
    masks: Tensor | None = None
    boxes: Sequence[Tensor] | None = None
    explain: Explain | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.inputs.dim() != 4:
            raise ValueError(
                f"Expected inputs of shape N x C x H x W, got {tuple(self.inputs.shape)}."
            )
        if self.model.training:
            raise ValueError("Measure a model in evaluation mode: call model.eval() first.")
        n = len(self.inputs)
        if tuple(self.targets.shape) != (n,):
            raise ValueError(f"Expected {n} targets, got shape {tuple(self.targets.shape)}.")
        if self.targets.is_floating_point() or self.targets.dtype == torch.bool:
            raise TypeError(f"Targets are class indices, got {self.targets.dtype}.")
        plane = (n, 1, *self.inputs.shape[2:])
        if tuple(self.maps.shape) != plane:
            raise ValueError(f"Expected maps of shape {plane}, got {tuple(self.maps.shape)}.")
        _reject(~self.maps.isfinite(), "has NaN or infinite values in its map: explain it again")
        if self.masks is not None and self.boxes is not None:
            raise ValueError("Give masks or boxes, not both: they might disagree.")
        if self.masks is not None:
            if self.masks.dtype != torch.bool:
                raise TypeError(f"Masks are boolean, got {self.masks.dtype}.")
            if tuple(self.masks.shape) != plane:
                raise ValueError(f"Expected masks of shape {plane}, got {tuple(self.masks.shape)}.")
            empty = ~self.masks.flatten(1).any(1)
            _reject(empty, "has an empty mask, so there is nothing to hit: leave it out")
        if self.boxes is not None and len(self.boxes) != n:
            raise ValueError(f"Expected boxes for {n} samples, got {len(self.boxes)}.")

    def __len__(self) -> int:
        return len(self.inputs)

    def sample(self, index: int) -> Explained:
        """One sample as a batch of its own."""
        at = slice(index, index + 1)
        return replace(
            self,
            inputs=self.inputs[at],
            targets=self.targets[at],
            maps=self.maps[at],
            masks=None if self.masks is None else self.masks[at],
            boxes=None if self.boxes is None else self.boxes[at],
        )


def _reject(wrong: Tensor, what: str) -> None:
    samples = wrong.flatten(1).any(1) if wrong.dim() > 1 else wrong
    if samples.any():
        raise ValueError(f"Sample {samples.nonzero().flatten()[:10].tolist()} {what}.")
