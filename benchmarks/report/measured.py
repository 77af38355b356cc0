"""The values of a section, by score and method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..run.rows import COST, Row
from .merge import Section

__all__ = ["Measured", "Score"]


@dataclass(frozen=True)
class Score:
    """A column of a table.

    Args:
        name (str): What it is called.
        source (str): The score in the rows.
        measure (str): The measure that gives it.
        category (str): The measure's category.
        higher_is_better (bool): The direction.
        per_class (bool, optional): Whether it is the mean of the means of classes. Default: False.
    """

    name: str
    source: str
    measure: str
    category: str
    higher_is_better: bool
    per_class: bool = False

    @property
    def unit(self) -> str:
        """What is counted by n."""
        return "classes" if self.per_class else "samples"


class Measured:
    """The values of a section's rows, by score and method.

    Args:
        section (Section): The section.
    """

    def __init__(self, section: Section) -> None:
        self.methods = list(section.configuration["methods"])
        self.about: dict[str, Row] = {}
        self._values: dict[tuple[str, str], dict[str, float]] = {}
        self._failed: dict[tuple[str, str], set[str]] = {}
        for row in section.rows:
            about = self.about.setdefault(row.sample, row)
            if about.error and not row.error:  # a failure need not know the label
                self.about[row.sample] = row
            if row.error:
                self._failed.setdefault((row.method, row.measure), set()).add(row.sample)
            for name, value in row.scores.items():
                self._values.setdefault((row.method, name), {})[row.sample] = value
        self.scores = [
            Score(name, name, measure, about["category"], higher)
            for measure, about in section.configuration["measures"].items()
            for name, higher in about["scores"].items()
            if any((method, name) in self._values for method in self.methods)
        ]

    def values(self, method: str, score: Score) -> Mapping[str, float]:
        """Sample to value."""
        return self._values.get((method, score.source), {})

    def failed(self, method: str, measure: str) -> set[str]:
        """Samples that could be loaded and should have a value, but have none."""
        kinds = ((method, COST), (method, measure))
        return set().union(*(self._failed.get(kind, set()) for kind in kinds))

    @property
    def unloaded(self) -> set[str]:
        """Samples that could not be loaded."""
        return self._failed.get(("", ""), set())

    def classes(self, values: Mapping[str, float]) -> dict[str, float]:
        """Class to the mean of its samples."""
        by_class: dict[str, list[float]] = {}
        for sample, value in values.items():
            by_class.setdefault(self.about[sample].label, []).append(value)
        return {label: math.fsum(of_it) / len(of_it) for label, of_it in by_class.items()}
