"""Samples that are done in step, so that several of them fill the network's batches.

A sample's work is a generator of rows. Where it needs the network, it yields a :class:`Step` and
is sent the outcome. Samples that wait for the same step take it in one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch

from captum_groupcam.masking.network import default_batch_size

from ..measures.explained import Explained
from .observed import Seen, shared_out
from .rows import Row

__all__ = ["Outcome", "Step", "Work", "in_step", "samples_together"]

#: So many batches of a call are full, at least: the last one, which may not be, costs little then.
_FULL_BATCHES = 4


def samples_together(queries: float, device: torch.device) -> int:
    """How many samples fill the batches of the network.

    Args:
        queries (float): Images that the network is shown for one sample; infinity if not known.
        device (torch.device): Where the network works. On a CPU it is 1: there an image alone costs
            about as much as its share of a batch.

    Returns:
        int: The number, from 1 to a batch.

    Examples::

        >>> [samples_together(queries, torch.device("cuda")) for queries in (1, 34, 200, 1280)]
        [64, 8, 2, 1]
    """
    if device.type == "cpu":
        return 1
    size = default_batch_size(device)
    return min(max(math.ceil(_FULL_BATCHES * size / max(queries, 1)), 1), size)


@dataclass(frozen=True, eq=False)
class Step:
    """What a sample waits for.

    Args:
        place (tuple of int): Its place in the order of all steps, the same for all samples.
        sample (str): The sample's name.
        explained (Explained): The sample.
        work (Callable): From one sample or several, :meth:`joined
            <benchmarks.measures.explained.Explained.joined>`, to a value for each.
        at_most (int): How many samples may take it in one call.
    """

    place: tuple[int, int]
    sample: str
    explained: Explained
    work: Callable[[Explained], Sequence[Any]]
    at_most: int

    def is_shared_by(self, other: Step) -> bool:
        """Whether one call may do for both: pictures of different sizes are no batch."""
        one, two = self.explained.inputs, other.explained.inputs
        return self.place == other.place and one.shape == two.shape and one.dtype == two.dtype


class Outcome(NamedTuple):
    """The outcome of a step.

    Attributes:
        value (Any): What its work gave; None if it failed.
        seen (dict): What it took, and why it failed; of a shared call an equal part.
    """

    value: Any
    seen: Seen


#: The work of a sample.
Work: TypeAlias = Generator[Row | Step, Outcome, None]
#: Takes a step for one sample or several: their values, and what was seen of all of them.
Attempt: TypeAlias = Callable[[Sequence[Step]], tuple[Sequence[Any], Seen]]


def in_step(samples: Iterable[Work], attempt: Attempt) -> Iterator[Row]:
    """Does the work of samples, those that wait for the same step in one call.

    Where a shared call fails or warns, each of its samples takes the step alone, so that rows say
    of a sample what they would without the others.

    Args:
        samples (iterable of Work): The samples.
        attempt (Callable): Takes a step.

    Yields:
        Row: What the samples yield.
    """
    waiting: dict[Work, Step] = {}

    def rows(sample: Work, outcome: Outcome | None = None) -> Iterator[Row]:
        """The sample's rows until it waits, or ends."""
        try:
            said = next(sample) if outcome is None else sample.send(outcome)
            while isinstance(said, Row):
                yield said
                said = next(sample)
        except StopIteration:
            return
        waiting[sample] = said

    for sample in samples:
        yield from rows(sample)
    while waiting:
        first = min(waiting.values(), key=lambda step: step.place)
        sharing = [sample for sample, step in waiting.items() if first.is_shared_by(step)]
        sharing = sharing[: first.at_most]
        steps = [waiting.pop(sample) for sample in sharing]
        for sample, outcome in zip(sharing, _outcomes(steps, attempt), strict=True):
            yield from rows(sample, outcome)


def _outcomes(steps: Sequence[Step], attempt: Attempt) -> Iterator[Outcome]:
    values, seen = attempt(steps)
    if len(steps) == 1:
        yield Outcome(values[0] if values else None, seen)
    elif seen["error"] or seen["warnings"]:
        for step in steps:
            yield from _outcomes([step], attempt)
    else:
        yield from map(Outcome, values, shared_out(seen, len(steps)))
