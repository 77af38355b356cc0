"""Tables of means with intervals, and of differences in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from captum_groupcam.metrics.bootstrap import Interval, bootstrap_mean

from .measured import Measured, Score

__all__ = [
    "ALL_SAMPLES",
    "CATEGORIES",
    "REFERENCE",
    "SMALL_COVER",
    "Cell",
    "Table",
    "holm",
    "make_table",
    "section_tables",
]

#: The method that others are compared with, if it is there; else the first one.
REFERENCE = "group_cam"
#: Objects are small if they cover less than this share of the image.
SMALL_COVER = 0.33
#: Fewer samples that differ would all have the same sign by chance in more than one case in twenty.
_MIN_DIFFERING = 6
#: The subset that leaves nothing out.
ALL_SAMPLES = "all samples"
#: Order of the tables.
CATEGORIES = ("faithfulness", "localisation", "complexity", "randomisation", "cost")
_LEVEL = 0.05
#: Intervals of so many values are remembered: tables repeat them, and they take long to draw.
_MOST_REMEMBERED = 1000

#: Some of a section's samples: for each whether it is among them.
Samples: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Cell:
    """What a table says of a method and a score.

    Args:
        interval (Interval): The mean.
        failed (int): Samples without a value, since the method or the measure failed.
        difference (Interval, optional): To the reference, on what both have. Default: None, it is
            the reference, or they have nothing in common.
        n_differing (int, optional): How many of these differ at all. Default: 0.
        p (float, optional): Of the difference, by the paired t-test. Default: None.
        better (bool, optional): Whether the difference is to the good. Default: False.
        corrected (bool, optional): Whether it is significant after Holm's correction over the
            table, too. Default: False.
        best (bool, optional): Whether no other mean of the column is better. Default: False.
    """

    interval: Interval
    failed: int
    difference: Interval | None = None
    n_differing: int = 0
    p: float | None = None
    better: bool = False
    corrected: bool = False
    best: bool = False

    @property
    def significant(self) -> bool:
        """Whether the interval of the difference excludes 0, and enough samples differ."""
        d = self.difference
        return d is not None and (d.low > 0 or d.high < 0) and self.n_differing >= _MIN_DIFFERING


@dataclass(frozen=True)
class Table:
    """Methods x scores.

    Args:
        category (str): What kind of scores; empty if there are several.
        subset (str): Which samples.
        common (bool): Whether it is restricted to samples that all methods have.
        reference (str): What methods are compared with.
        methods (sequence of str): The rows.
        scores (sequence of Score): The columns.
        cells (mapping): Of method and name of a score; without those that have no value.
        failed (mapping): For those without a value, the number of samples that failed.
        comparable (bool): Whether all means of a column are over the same samples.
    """

    category: str
    subset: str
    common: bool
    reference: str
    methods: Sequence[str]
    scores: Sequence[Score]
    cells: Mapping[tuple[str, str], Cell]
    failed: Mapping[tuple[str, str], int]
    comparable: bool

    @property
    def samples(self) -> str:
        """Which samples, in words."""
        if not self.common:
            return self.subset
        words = "samples that all methods have"
        return words if self.subset == ALL_SAMPLES else f"{self.subset}, {words}"

    @property
    def heading(self) -> str:
        """What stands above it."""
        return f"{self.category}: {self.samples}".lstrip(": ").capitalize()

    @property
    def n_comparisons(self) -> int:
        """Number of differences."""
        return sum(cell.difference is not None for cell in self.cells.values())

    @property
    def sizes(self) -> str:
        """The largest n of the columns, in words."""
        sizes: dict[str, list[str]] = {}
        for score in self.scores:
            sizes.setdefault(f"n = {self.n(score)} {score.unit}", []).append(score.name)
        if len(sizes) == 1:
            return next(iter(sizes))
        return ", ".join(f"{size} for {' and '.join(names)}" for size, names in sizes.items())

    def n(self, score: Score) -> int:
        """The largest n of a column."""
        return max(self.cells[m, score.name].interval.n for m in self.having(score))

    def having(self, score: Score) -> list[str]:
        """The methods with a value."""
        return [method for method in self.methods if (method, score.name) in self.cells]


def section_tables(
    measured: Measured, methods: Sequence[str], reference: str | None = None
) -> list[Table]:
    """The tables of a section: a category each, and for localisation small objects apart.

    Where methods have different samples, a second table holds those that all have.

    Args:
        measured (Measured): The values.
        methods (sequence of str): The methods.
        reference (str, optional): As for :func:`make_table`. Default: None.
    """
    tables = []
    categories = dict.fromkeys((*CATEGORIES, *(score.category for score in measured.scores)))
    for category in categories:
        scores = [score for score in measured.scores if score.category == category]
        for subset, samples in _subsets(measured, category).items():
            table = make_table(measured, methods, scores, subset, samples, reference=reference)
            if not table.cells:
                continue
            tables.append(table)
            shared = _shared(measured, table, samples)
            if not table.comparable and shared.any():
                tables.append(
                    make_table(
                        measured,
                        methods,
                        scores,
                        subset,
                        shared,
                        reference=reference,
                        common=True,
                    )
                )
    return tables


def make_table(
    measured: Measured,
    methods: Sequence[str],
    scores: Sequence[Score],
    subset: str,
    samples: Samples,
    *,
    reference: str | None = None,
    common: bool = False,
) -> Table:
    """Computes a table.

    Args:
        measured (Measured): The values.
        methods (sequence of str): The rows.
        scores (sequence of Score): The columns. Those of a pointing game are followed by the mean
            over classes.
        subset (str): What the samples are called.
        samples (numpy.ndarray): Which of the samples.
        reference (str, optional): What methods are compared with. Default: None,
            :data:`REFERENCE` or the first.
        common (bool, optional): Whether these are the samples that all methods have.
            Default: False.
    """
    if reference is None:
        reference = REFERENCE if REFERENCE in methods else methods[0]
    scores = _with_class_means(measured, scores, samples)
    cells: dict[tuple[str, str], Cell] = {}
    comparable = True
    for score in scores:
        chosen = {method: measured.having(method, score) & samples for method in methods}
        chosen = {method: having for method, having in chosen.items() if having.any()}
        same = len({having.tobytes() for having in chosen.values()}) <= 1
        comparable &= same
        column = {
            method: _cell(measured, score, method, chosen, reference, samples) for method in chosen
        }
        means = [cell.interval.mean for cell in column.values()]
        best = (max if score.higher_is_better else min)(means, default=0.0)
        for method, cell in column.items():
            is_best = same and len(means) > 1 and cell.interval.mean == best
            cells[method, score.name] = replace(cell, best=is_best)
    tested = {place: cell.p for place, cell in cells.items() if cell.p is not None}
    for place, passed in zip(tested, holm(list(tested.values())), strict=True):
        cells[place] = replace(cells[place], corrected=bool(passed) and cells[place].significant)
    shown = [score for score in scores if any((m, score.name) in cells for m in methods)]
    failed = {
        (method, score.name): int((measured.failed(method, score.measure) & samples).sum())
        for method in methods
        for score in shown
        if (method, score.name) not in cells
    }
    failed = {place: count for place, count in failed.items() if count}
    said = cells.keys() | failed.keys()
    rows = [method for method in methods if any((method, score.name) in said for score in shown)]
    categories = {score.category for score in scores}
    category = categories.pop() if len(categories) == 1 else ""
    return Table(category, subset, common, reference, rows, shown, cells, failed, comparable)


def holm(p_values: Sequence[float], level: float = _LEVEL) -> list[bool]:
    """Which of several hypotheses are rejected, all together at this level (Holm 1979).

    Args:
        p_values (sequence of float): One for each hypothesis.
        level (float, optional): The chance of any false rejection. Default: 0.05.

    Examples::

        >>> holm([0.04, 0.01, 0.03])
        [False, True, False]
    """
    rejected = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[place] > level / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def _subsets(measured: Measured, category: str) -> dict[str, Samples]:
    about = measured.about
    subsets = {ALL_SAMPLES: np.ones(measured.n_samples, dtype=bool)}
    if category == "localisation":
        small = about.cover < SMALL_COVER
        name = f"small objects (cover < {SMALL_COVER})"
        some = ((name, small), ("difficult subset", about.difficult))
        subsets |= {name: samples for name, samples in some if samples.any()}
    return subsets


def _shared(measured: Measured, table: Table, samples: Samples) -> Samples:
    """The samples that every cell has."""
    shared: Samples = samples.copy()
    for score in table.scores:
        for method in table.having(score):
            shared &= measured.having(method, score)
    return shared


def _with_class_means(measured: Measured, scores: Sequence[Score], samples: Samples) -> list[Score]:
    n_classes = measured.n_classes(samples)
    found = []
    for score in scores:
        found.append(score)
        # With one class, or one sample a class, it is the mean over samples again.
        if "PointingGame" in score.measure and 1 < n_classes < samples.sum():
            found.append(replace(score, name=f"{score.name}, mean of classes", per_class=True))
    return found


def _cell(
    measured: Measured,
    score: Score,
    method: str,
    chosen: Mapping[str, Samples],
    reference: str,
    samples: Samples,
) -> Cell:
    def units(method: str, having: Samples) -> NDArray[np.float64]:
        values = measured.values(method, score)
        return measured.classes(values, having) if score.per_class else values[having]

    own = chosen[method]
    failed = int((measured.failed(method, score.measure) & samples & ~own).sum())
    cell = Cell(_mean(units(method, own)), failed)
    if method == reference or reference not in chosen:
        return cell
    shared = own & chosen[reference]
    if not shared.any():
        return cell
    differences = units(method, shared) - units(reference, shared)
    interval = _mean(differences)
    better = interval.mean > 0 if score.higher_is_better else interval.mean < 0
    return replace(
        cell,
        difference=interval,
        n_differing=int(np.count_nonzero(differences)),
        p=paired_p(differences),
        better=better,
    )


def _mean(values: NDArray[np.float64]) -> Interval:
    if len(values) > _MOST_REMEMBERED:
        return bootstrap_mean(values)
    return _bootstrapped(values.tobytes())


@lru_cache(maxsize=4096)
def _bootstrapped(values: bytes) -> Interval:
    return bootstrap_mean(np.frombuffer(values))


def paired_p(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """The p-value of the mean of paired differences, by Student's t-test, two-sided.

    Equal differences have no spread to test against; they get what flipping their signs gives.

    Args:
        differences (sequence of float): One a sample.

    Examples::

        >>> round(paired_p([1.0, 2.0, 3.0]), 4)
        0.0742
        >>> paired_p([0.5, 0.5, 0.5, 0.5])
        0.125
    """
    values = np.asarray(differences, dtype=np.float64)
    mean = values.mean()
    if np.ptp(values) <= 1e-12 * abs(mean):
        return 1.0 if mean == 0 else float(2.0 ** (1 - len(values)))
    t = mean / (values.std(ddof=1) / np.sqrt(len(values)))
    return float(2 * stdtr(len(values) - 1, -abs(t)))
