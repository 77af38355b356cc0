"""The tables of a report as files: Markdown to paste, CSV to compute with."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from captum_groupcam.metrics.bootstrap import Interval

from .measured import Score
from .tables import Cell, Table

__all__ = [
    "COLUMNS",
    "column_decimals",
    "decimals",
    "markdown",
    "marks",
    "mean_decimals",
    "number",
    "spread",
    "tidy_csv",
]

#: Columns of the CSV.
COLUMNS = (
    "section", "subset", "method", "score", "higher_is_better", "unit", "n", "failed", "mean",
    "low", "high", "reference", "n_paired", "difference", "difference_low", "difference_high",
    "significant", "significant_corrected",
)  # fmt: skip


def tidy_csv(sections: Mapping[str, Iterable[Table]]) -> str:
    """One line for each section, subset, method and score.

    Args:
        sections (mapping of str to iterable of Table): Title to tables.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for title, tables in sections.items():
        for table in tables:
            for score, method in product(table.scores, table.methods):
                direction = str(score.higher_is_better)
                about = [title, table.samples, method, score.name, direction, score.unit]
                if cell := table.cells.get((method, score.name)):
                    writer.writerow([*about, *_values(cell), table.reference, *_difference(cell)])
                elif failed := table.failed.get((method, score.name)):
                    writer.writerow([*about, 0, failed, *[""] * 3, table.reference, *[""] * 6])
    return buffer.getvalue()


def markdown(sections: Mapping[str, Iterable[Table]]) -> str:
    """The tables in Markdown, each followed by its differences to the reference.

    Args:
        sections (mapping of str to iterable of Table): Title to tables.
    """
    parts = []
    for title, tables in sections.items():
        parts.append(f"# {_escaped(title)}\n")
        for table in tables:
            parts.append(f"## {_escaped(table.heading)}\n")
            parts.append(_means(table))
            if table.n_comparisons:
                parts.append(_differences(table))
    return "\n".join(parts)


def marks(cell: Cell) -> str:
    """Significance as a mark: up is better, down is worse; doubled if it survives correction."""
    if not cell.significant:
        return ""
    return ("▲" if cell.better else "▼") * (2 if cell.corrected else 1)


def decimals(values: Iterable[float]) -> int:
    """Decimals for a column, so that its largest value has three significant digits."""
    largest = max((abs(value) for value in values), default=0.0)
    return 3 if largest == 0 else min(6, max(0, 3 - math.ceil(math.log10(largest))))


def number(value: float, places: int, *, signed: bool = False) -> str:
    """A number with so many decimals and a proper minus sign."""
    text = f"{value:+.{places}f}" if signed else f"{value:.{places}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def spread(interval: Interval, places: int, *, signed: bool = False) -> str:
    """The ends of an interval."""
    if math.isnan(interval.low):
        return "[one value]"
    low, high = (number(v, places, signed=signed) for v in (interval.low, interval.high))
    return f"[{low}, {high}]"


def column_decimals(table: Table, score: Score) -> int:
    """Decimals for the means of a column and their differences."""
    return decimals(table.cells[m, score.name].interval.mean for m in table.having(score))


def mean_decimals(table: Table, score: Score, cell: Cell) -> int:
    """Decimals for a mean: those of its column, or its own for costs, which differ by powers."""
    interval = cell.interval
    if score.category != "cost":
        return column_decimals(table, score)
    if interval.mean == interval.low == interval.high and interval.mean.is_integer():
        return 0
    return decimals([interval.mean])


def _means(table: Table) -> str:
    heads = [f"{_escaped(s.name)} {'↑' if s.higher_is_better else '↓'}" for s in table.scores]
    rows = [
        [_escaped(method), *(_mean(table, score, method) for score in table.scores)]
        for method in table.methods
    ]
    note = f"Mean [95 % interval]; {table.sizes} where nothing else is said."
    if not table.comparable:
        note += " The methods do not have the same samples: compare them by their differences."
    return "\n".join([*_grid(["method", *heads], rows), "", note, ""])


def _mean(table: Table, score: Score, method: str) -> str:
    cell = table.cells.get((method, score.name))
    if cell is None:
        failed = table.failed.get((method, score.name))
        return f"all {failed} failed" if failed else ""
    places = mean_decimals(table, score, cell)
    mean = number(cell.interval.mean, places)
    text = f"{f'**{mean}**' if cell.best else mean} {spread(cell.interval, places)}"
    if cell.interval.n != table.n(score):
        text += f" (n = {cell.interval.n})"
    return text + (f" ({cell.failed} failed)" if cell.failed else "")


def _differences(table: Table) -> str:
    rows = [
        [_escaped(method), *(_compared(table, score, method) for score in table.scores)]
        for method in table.methods
        if method != table.reference
    ]
    note = (
        "Differences on the samples that both have; ▲ better, ▼ worse: the 95 % interval excludes "
        "0 and at least six samples differ; doubled: also after Holm's correction over these "
        f"{table.n_comparisons} comparisons."
    )
    heads = [f"minus {_escaped(table.reference)}", *(_escaped(s.name) for s in table.scores)]
    return "\n".join([*_grid(heads, rows), "", note, ""])


def _compared(table: Table, score: Score, method: str) -> str:
    cell = table.cells.get((method, score.name))
    if cell is None or cell.difference is None:
        return ""
    places = column_decimals(table, score)
    parts = [
        number(cell.difference.mean, places, signed=True),
        spread(cell.difference, places, signed=True),
        f"(n = {cell.difference.n})" if cell.difference.n != table.n(score) else "",
        marks(cell),
    ]
    return " ".join(filter(None, parts))


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _escaped(text: str) -> str:
    """Text that Markdown leaves as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    for character in "\\`*_|[]":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())


def _values(cell: Cell) -> list[float | str]:
    return [cell.interval.n, cell.failed, cell.interval.mean, *_ends(cell.interval)]


def _ends(interval: Interval) -> list[float | str]:
    return ["" if math.isnan(end) else end for end in (interval.low, interval.high)]


def _difference(cell: Cell) -> list[float | str]:
    if cell.difference is None:
        return [""] * 6
    d = cell.difference
    return [d.n, d.mean, *_ends(d), cell.significant, cell.corrected]
