"""What a measure of finished maps is to the benchmark."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from torch import Tensor

from .explained import Explained

__all__ = ["Category", "Measure", "Need", "no_queries"]

Category: TypeAlias = Literal[
    "faithfulness", "localisation", "complexity", "robustness", "randomisation"
]
#: ``model``: asks the network. ``objects``: masks or boxes. ``explain``: an explain function.
#: ``batch``: compares samples with each other, so it wants all of them at once.
Need: TypeAlias = Literal["model", "objects", "explain", "batch"]


def no_queries(shape: Sequence[int], **_: Any) -> int:  # noqa: ARG001
    """The cost of a measure that asks the network nothing."""
    return 0


@dataclass(frozen=True)
class Measure:
    """A measure of finished maps: ``measure(explained)`` gives one float a sample and score.

    Args:
        name (str): Its name in :data:`MEASURES`.
        category (str): ``faithfulness``, ``localisation``, ``complexity``, ``robustness`` or
            ``randomisation``.
        higher_is_better (mapping of str to bool): The scores it gives, by name, and whether a
            higher one is better. Most give one, called like the measure.
        compute (callable): Takes :class:`~benchmarks.measures.explained.Explained` and the
            parameters, returns N values a score, in the order of `higher_is_better`.
        source (str): Where it is defined.
        needs (frozenset of str, optional): ``model``, ``objects`` (masks or boxes), ``explain``
            (an explain function), ``batch`` (samples are compared with each other, so a value
            depends on all of them). Default: nothing but maps.
        parameters (mapping, optional): All that was chosen about it. Default: none.
        cost (callable, optional): Forward passes for one sample, from the input's shape (C, H, W)
            and the parameters. Default: none.
        explanations (int, optional): Explanations computed for one sample. Default: 0.
        curves (sequence of str, optional): Names of what `compute` returns after the scores: the
            curves behind them, N x K each. Default: none.
        shares_batches (bool, optional): Whether a sample's value does not depend on the samples
            beside it but for rounding, and several share the network's batches: then a run may
            measure several at once. Default: False, one at a time.

    Examples::

        >>> from benchmarks.measures.registry import MEASURES
        >>> MEASURES["quantus.Sparseness"].higher_is_better
        {'quantus.Sparseness': True}
        >>> MEASURES["DeletionInsertion"].queries((3, 224, 224))
        200
    """

    name: str
    category: Category
    higher_is_better: Mapping[str, bool]
    compute: Callable[..., Tensor | tuple[Tensor, ...]]
    source: str
    needs: frozenset[Need] = frozenset()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    cost: Callable[..., int] = no_queries
    explanations: int = 0
    curves: tuple[str, ...] = ()
    shares_batches: bool = False

    def __call__(self, explained: Explained) -> dict[str, Tensor]:
        """The scores of :meth:`measure` alone."""
        return self.measure(explained)[0]

    def measure(self, explained: Explained) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Measures every sample.

        Args:
            explained (Explained): The samples and their maps.

        Returns:
            tuple: For each score N finite values, and for each curve N x K, double precision, on
            the CPU.

        Raises:
            TypeError: If it gives no tensors.
            ValueError: If masks, boxes or the explain function are missing, or a value is
                undefined; the message names the samples.
        """
        if "objects" in self.needs and explained.objects is None:
            raise ValueError(
                f"{self.name} asks whether a map finds the object: it needs masks or boxes."
            )
        if "explain" in self.needs and explained.explain is None:
            raise ValueError(f"{self.name} explains again: it needs an explain function.")
        values = self.compute(explained, **self.parameters)
        names = (*self.higher_is_better, *self.curves)
        given = values if isinstance(values, tuple) else (values,)
        if len(given) != len(names) or not all(isinstance(one, Tensor) for one in given):
            raise TypeError(
                f"{self.name} should give a tensor of a value for each sample, for each of "
                f"{', '.join(names)}; it gave {', '.join(type(one).__name__ for one in given)}."
            )
        found = {
            name: value.detach().double().cpu() for name, value in zip(names, given, strict=True)
        }
        curves = {name: found.pop(name) for name in self.curves}
        return found, curves

    @property
    def description(self) -> str:
        """What it computes, in one line."""
        return (inspect.getdoc(self.compute) or "").partition("\n")[0]

    def queries(self, shape: Sequence[int]) -> int:
        """Forward passes for one sample, without those of its explanations.

        Args:
            shape (sequence of int): Shape of one input: C, H, W.
        """
        return self.cost(shape, **self.parameters)
