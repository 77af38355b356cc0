"""The values of a section, by score and method, an entry for each sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..run.rows import COST
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
        self.rows = section.rows
        self.about = section.rows.about()
        self.n_samples = len(self.about.samples)
        codes = {label: code for code, label in enumerate(dict.fromkeys(self.about.labels))}
        self._codes = np.array([codes[label] for label in self.about.labels], dtype=np.int64)
        self._values: dict[tuple[str, str, str], NDArray[np.float64]] = {}
        self._failed = section.rows.failed()
        self._scored = section.rows.scored()
        self.scores = [
            Score(name, name, measure, about["category"], higher)
            for measure, about in section.configuration["measures"].items()
            for name, higher in about["scores"].items()
            if any((method, measure, name) in self._scored for method in self.methods)
        ]

    def values(self, method: str, score: Score) -> NDArray[np.float64]:
        """A value for each sample; NaN where there is none."""
        key = method, score.measure, score.source
        if key not in self._values:
            self._values[key] = np.full(self.n_samples, math.nan)
            if key in self._scored:
                places, values = self.rows.values(*key)
                self._values[key][places] = values
        return self._values[key]

    def having(self, method: str, score: Score) -> NDArray[np.bool_]:
        """Which samples have a value."""
        return ~np.isnan(self.values(method, score))

    def failed(self, method: str, measure: str) -> NDArray[np.bool_]:
        """Which samples could be loaded and should have a value, but have none."""
        failed = np.zeros(self.n_samples, dtype=bool)
        for kind in ((method, COST), (method, measure)):
            failed[self._failed.get(kind, np.empty(0, dtype=np.int64))] = True
        return failed

    @property
    def n_unloaded(self) -> int:
        """How many samples could not be loaded."""
        return len(self._failed.get(("", ""), ()))

    def n_classes(self, samples: NDArray[np.bool_]) -> int:
        """How many classes some samples have."""
        return len(np.unique(self._codes[samples]))

    def classes(
        self, values: NDArray[np.float64], samples: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """The means of classes over some samples, in the order in which classes come first."""
        codes, values = self._codes[samples], values[samples]
        grouped = np.argsort(codes, kind="stable")
        _, first, sizes = np.unique(codes, return_index=True, return_counts=True)
        means = np.array(
            [
                math.fsum(of_class) / len(of_class)
                for of_class in np.split(values[grouped], np.cumsum(sizes)[:-1])
            ]
        )
        return means[np.argsort(first)]
