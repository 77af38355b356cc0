"""Targets: which output of the network is explained, for every sample of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_groupcam._captum import TargetType
from captum_groupcam.masking.checks import check_count
from captum_groupcam.networks.tensors import check_tensor

__all__ = ["Contrast", "Target", "TargetError", "TargetType", "Targets"]


class TargetError(ValueError, AssertionError):
    """A target does not name one value of the output for each sample.

    It is a ValueError, and an AssertionError as in Captum.
    """


@dataclass(frozen=True)
class Target:
    """A target in any of Captum's forms, brought to one: an index of the output for each sample.

    Attributes:
        indices (Tensor or None): N x D, for outputs of shape N x D dimensions; None where the
            network gives one value a sample.
        lowest (tuple of int): The smallest of the indices over the samples, known to the host, so
            that a check of the range does not wait for the device.
        highest (tuple of int): The largest of them.
    """

    indices: Tensor | None
    lowest: tuple[int, ...] = ()
    highest: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what is selected from one row."""
        return ()

    @classmethod
    def of(cls, target: TargetType, n_samples: int, device: torch.device) -> Target:
        """Reads a target as Captum does.

        Args:
            target (int, tuple, Tensor, list or None): One index for all samples (an int, a tensor
                with one element, or a tuple for outputs with more than two dimensions), or one for
                each sample (a 1-D tensor or a list of ints, or a list of tuples).
            n_samples (int): The number of samples, N.
            device (torch.device): Where the indices are kept.

        Returns:
            Target: The indices, N x D.

        Raises:
            TargetError: If there is not one index for each sample.
            TypeError: If the target has another form.

        Examples::

            >>> Target.of([2, 0], 2, torch.device("cpu")).indices.tolist()
            [[2], [0]]
            >>> Target.of((1, 5), 2, torch.device("cpu")).indices.tolist()
            [[1, 5], [1, 5]]
        """
        if target is None:
            return cls(None)
        rows = _rows(target, n_samples)
        if len({len(row) for row in rows}) != 1:
            raise TargetError(f"The tuples of a target need one length, got {target}.")
        columns = list(zip(*rows, strict=True))
        if any(abs(part) >= 2**63 for row in rows for part in row):
            raise TargetError(f"The target {target} is out of range for any output.")
        return cls(
            torch.tensor(rows, device=device),
            tuple(map(min, columns)),
            tuple(map(max, columns)),
        )

    def of_samples(self, samples: Tensor) -> Target:
        """The target of some of the samples.

        Args:
            samples (Tensor): Q indices.

        Returns:
            Target: Their target.
        """
        return self if self.indices is None else replace(self, indices=self.indices[samples])

    def select(self, output: Tensor, samples: Tensor) -> Tensor:
        """Takes from each row of the output the value at the target of its sample.

        Args:
            output (Tensor): Q x ..., the network's output for Q rows.
            samples (Tensor): Q indices, the sample that each row belongs to.

        Returns:
            Tensor: Q values.

        Raises:
            ValueError: If the output has not Q rows.
            TargetError: If the target is out of range, or does not name one value.
        """
        rows = len(samples)
        if output.dim() == 0 or output.shape[0] != rows:
            raise ValueError(
                f"The network returned an output of shape {tuple(output.shape)} for {rows} inputs; "
                f"expected one row for each."
            )
        sizes = output.shape[1:]
        if self.indices is None:
            if output.numel() != rows:
                raise TargetError(
                    f"The output has shape {tuple(output.shape)}: give a target to say which of "
                    "its values is explained."
                )
            return output.reshape(rows)
        named = self.indices.shape[1]
        if named > len(sizes) or sizes[named:].numel() != 1:
            raise TargetError(
                f"A target with {_indices(named)} does not name one value in an output of shape "
                f"{tuple(output.shape)}: expected {_indices(len(sizes))} for each sample."
            )
        for size, low, high in zip(sizes, self.lowest, self.highest, strict=False):
            if not -size <= low <= high < size:
                if not size:
                    raise TargetError(f"The output has no values, {tuple(output.shape)}.")
                wrong = high if high >= size else low
                raise TargetError(
                    f"The target {wrong} is out of range for an output of shape "
                    f"{tuple(output.shape)}: expected 0 to {size - 1}."
                )
        positions = torch.arange(rows, device=output.device)
        chosen = (positions, *self.indices[samples].to(output.device).unbind(1))
        return output[chosen].reshape(rows)


@dataclass(frozen=True)
class Targets:
    """Several targets for each sample, selected from the same output.

    Attributes:
        targets (tuple of Target): T targets.
    """

    targets: tuple[Target, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what is selected from one row."""
        return (len(self.targets),)

    def of_samples(self, samples: Tensor) -> Targets:
        """The targets of some of the samples (see :meth:`Target.of_samples`)."""
        return Targets(tuple(target.of_samples(samples) for target in self.targets))

    def select(self, output: Tensor, samples: Tensor) -> Tensor:
        """Takes Q x T values, one for each row of the output (see :meth:`Target.select`)."""
        return torch.stack([target.select(output, samples) for target in self.targets], dim=-1)


@dataclass(frozen=True)
class Contrast:
    """What sets a class apart from others: its output less a share of the mean of theirs.

    Attributes:
        target (Target): The class.
        strength (float): The share.
        n_references (int): How many classes it is contrasted with: those whose outputs come closest
            to its own.
        references (tuple of int): They by number instead. Default: (), those that come closest.
    """

    target: Target
    strength: float
    n_references: int
    references: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.references, (list, tuple)):
            raise TypeError(
                f"references must be a tuple of classes, got {type(self.references).__name__}."
            )
        for reference in self.references:
            check_count("each of references", reference, least=0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what is selected from one row."""
        return ()

    def of_samples(self, samples: Tensor) -> Contrast:
        """The contrast of some of the samples (see :meth:`Target.of_samples`)."""
        return replace(self, target=self.target.of_samples(samples))

    def select(self, output: Tensor, samples: Tensor) -> Tensor:
        """Takes Q values, one for each row of the output (see :meth:`Target.select`)."""
        value = self.target.select(output, samples)
        indices = self.target.indices
        if indices is None or output.dim() < 2 or output.shape[1] < 2:
            raise TargetError(
                "A class is contrasted with others: expected an output N x classes and a target, "
                f"got the shape {tuple(output.shape)}."
            )
        rows, (classes, *rest) = len(samples), indices[samples].to(output.device).unbind(1)
        at = (torch.arange(rows, device=output.device), *rest)
        scores = output.movedim(1, -1)[at].reshape(rows, -1)
        classes = (classes % scores.shape[1]).unsqueeze(1)
        if self.references:
            others = torch.tensor(self.references, device=output.device).expand(rows, -1)
            if int(others.max()) >= scores.shape[1] or bool((others == classes).any()):
                raise TargetError(
                    f"References are other classes than the target, from 0 to {scores.shape[1] - 1}"
                    f"; got {self.references}."
                )
        else:
            distances = (scores - value.unsqueeze(1)).detach().abs()
            distances.scatter_(1, classes, torch.inf)
            n_references = min(self.n_references, scores.shape[1] - 1)
            others = distances.topk(n_references, dim=1, largest=False).indices
        return value - self.strength * scores.gather(1, others).mean(1)


def _indices(count: int) -> str:
    return "1 index" if count == 1 else f"{count} indices"


def _rows(target: Any, n_samples: int) -> list[tuple[int, ...]]:
    """One tuple of indices for each sample."""
    if isinstance(target, Tensor):
        check_tensor("A target", target)
        if target.is_floating_point() or target.is_complex() or target.dtype is torch.bool:
            raise TypeError(f"A target is made of integers, got a tensor of {target.dtype}.")
        if target.dim() > 1 and target.numel() != 1:
            raise TargetError(
                f"A target tensor has one element or one for each sample, got the shape "
                f"{tuple(target.shape)}. For outputs with more dimensions give a list of tuples."
            )
        target = target.flatten().tolist()
        target = target[0] if len(target) == 1 else target
    if isinstance(target, list):
        if len(target) != n_samples:
            raise TargetError(
                f"Expected one target for each of {n_samples} samples, got {len(target)}."
            )
        return [_row(element) for element in target]
    return [_row(target)] * n_samples


def _row(element: int | Sequence[int]) -> tuple[int, ...]:
    parts = element if isinstance(element, tuple) else (element,)
    try:
        if any(isinstance(part, (bool, np.bool_)) for part in parts):
            raise TypeError("True and False are not places in an output")
        return tuple(index(part) for part in parts)
    except TypeError as error:
        raise TypeError(
            "A target is an int, a tuple of ints, a tensor, or a list with one of these for each "
            f"sample; got {element!r}."
        ) from error
