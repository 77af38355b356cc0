"""What a measure gets to see: samples, the maps that explain them, and where the objects are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor, nn

from captum_groupcam.metrics.functional import boxes_to_masks

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
        boxes (sequence of Tensor, optional): Instead of masks, for each sample the B x 4 boxes
            (x0, y0, x1, y1) of its target class, ends exclusive; a box covers every pixel that it
            touches. Default: None.
        image_sizes (Tensor, optional): N x 2, height and width of the images whose pixels the
            boxes count, where the input shows the whole image at another size. Default: None, the
            inputs' size.
        explain (callable, optional): For measures that explain again, with another network or for
            another class: see :data:`Explain`. Default: None.
        seed (int, optional): Seed of everything random: subsets, ties, noise. Every sample starts
            from it, so its values do not depend on the samples beside it. From 0 to 2**32 - 1.
            Default: 0.
        seeds (sequence of int, optional): Instead of `seed`, one for each sample. Default: None.

    Raises:
        ValueError: If shapes do not fit, a map contains NaN, a sample has nothing to hit, a target
            is negative (the message names the samples), a seed is out of range, or the model is
            in training mode.
        TypeError: If targets are not integers or masks are not boolean.

    Examples::

        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
        >>> explained = Explained(
        ...     model,
        ...     inputs=torch.ones(1, 1, 4, 4),
        ...     targets=torch.tensor([1]),
        ...     maps=torch.eye(4).view(1, 1, 4, 4),
        ...     boxes=[torch.tensor([[0, 0, 2.5, 1]])],
        ... )
        >>> explained.objects[0, 0, 0]
        tensor([ True,  True,  True, False])
    """

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    maps: Tensor
    masks: Tensor | None = None
    boxes: Sequence[Tensor] | None = None
    image_sizes: Tensor | None = None
    explain: Explain | None = None
    seed: int = 0
    seeds: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.inputs.dim() != 4:
            raise ValueError(
                f"Expected inputs of shape N x C x H x W, got {tuple(self.inputs.shape)}."
            )
        if self.model.training:
            raise ValueError("Measure a model in evaluation mode: call model.eval() first.")
        n = len(self.inputs)
        if len(self.each_seed) != n:
            raise ValueError(f"Expected {n} seeds, got {len(self.each_seed)}.")
        for seed in self.each_seed:
            if not 0 <= seed < 2**32:
                raise ValueError(f"Expected a seed from 0 to 2**32 - 1, got {seed}.")
        if tuple(self.targets.shape) != (n,):
            raise ValueError(f"Expected {n} targets, got shape {tuple(self.targets.shape)}.")
        if self.targets.is_floating_point() or self.targets.dtype == torch.bool:
            raise TypeError(f"Targets are class indices, got {self.targets.dtype}.")
        _reject(self.targets < 0, "has a negative target: classes count from 0")
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
        if self.boxes is not None and len(self.boxes) != n:
            raise ValueError(f"Expected boxes for {n} samples, got {len(self.boxes)}.")
        if self.image_sizes is not None and (
            self.boxes is None or tuple(self.image_sizes.shape) != (n, 2)
        ):
            raise ValueError(
                f"image_sizes go with boxes, and are {n} x 2, got {tuple(self.image_sizes.shape)}."
            )
        if self.objects is not None:
            nothing = ~self.objects.flatten(1).any(1)
            _reject(nothing, "has no object in its image, so there is nothing to hit: leave it out")

    @cached_property
    def objects(self) -> Tensor | None:
        """The pixels of the input that belong to objects, from masks or boxes: N x 1 x H x W."""
        if self.boxes is None:
            return self.masks
        masks = boxes_to_masks(self.boxes, self.inputs.shape[2:], image_size=self.image_sizes)
        return masks.to(self.inputs.device)

    @property
    def each_seed(self) -> Sequence[int]:
        """The seed of each sample."""
        return [self.seed] * len(self) if self.seeds is None else self.seeds

    def __len__(self) -> int:
        return len(self.inputs)

    @classmethod
    def joined(cls, samples: Sequence[Explained]) -> Explained:
        """Samples of one network and method as one batch.

        Args:
            samples (sequence of Explained): The samples, with inputs of one size; each with masks,
                each with boxes, or none with either.

        Raises:
            ValueError: If that is not so.
        """
        if len(samples) == 1:
            return samples[0]
        kinds = {(s.masks is None, s.boxes is None, s.image_sizes is None) for s in samples}
        if len(kinds) > 1:
            raise ValueError("Masks, boxes or sizes are there for some of the samples only.")

        first = samples[0]
        return replace(
            first,
            inputs=torch.cat([s.inputs for s in samples]),
            targets=torch.cat([s.targets for s in samples]),
            maps=torch.cat([s.maps for s in samples]),
            masks=None if first.masks is None else _joined(s.masks for s in samples),
            boxes=None if first.boxes is None else [box for s in samples for box in s.boxes or ()],
            image_sizes=None
            if first.image_sizes is None
            else _joined(s.image_sizes for s in samples),
            seeds=[seed for s in samples for seed in s.each_seed],
        )

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
            image_sizes=None if self.image_sizes is None else self.image_sizes[at],
            seed=self.each_seed[index],
            seeds=None,
        )


def _joined(tensors: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([tensor for tensor in tensors if tensor is not None])


def _reject(wrong: Tensor, what: str) -> None:
    samples = wrong.flatten(1).any(1) if wrong.dim() > 1 else wrong
    if samples.any():
        raise ValueError(f"Sample {samples.nonzero().flatten()[:10].tolist()} {what}.")
