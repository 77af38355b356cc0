"""The verdict: for each family of measures, who is at the top, who is behind, what is undecided."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch

from captum_groupcam.metrics.bootstrap import resampled_means

from .measured import Measured, Score
from .tables import ALL_SAMPLES, make_table

__all__ = [
    "LEGEND",
    "Cell",
    "Family",
    "Standing",
    "VerdictTable",
    "families",
    "verdict_markdown",
    "verdict_tables",
]

#: ``top``: no method is significantly better, and first in at least one in forty resamples.
#: ``behind``: significantly worse than the best mean, also after Holm's correction.
#: ``undecided``: neither.
Status: TypeAlias = Literal["top", "behind", "undecided"]

#: The family that is no matter of ranks.
_COST = "cost"
#: Family to the scores that decide: of those that a run has, the one that most methods have, and
#: the first of equals. Where none is there, it is the first score of the family's category.
_DECIDING: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "faithfulness": (
        "faithfulness",
        ("over_all", "official.over_all", "rise.over_all"),
    ),
    "localisation, truth known": ("", ("grid.roc_auc", "planted.pr_auc")),
    "localisation, boxes": (
        "",
        ("quantus.RelevanceRankAccuracy", "pointing_game.0px", "pointing_game"),
    ),
    "robustness": ("robustness", ("agreement.shift", "max_sensitivity", "adcc")),
    "randomisation": ("randomisation", ("cascading.spearman", "independent.spearman")),
    _COST: ("cost", ("queries",)),
}
_SIGNS: Mapping[Status, str] = {"top": "▲", "behind": "▼", "undecided": "·"}
_N_RESAMPLES = 4000
#: Methods with less than this share of the samples are not ranked with those that have all.
_LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Standing:
    """Where a method stands in a family.

    Attributes:
        rank (int): 1 for the best mean; equal means share the better rank.
        low (int): The lower end of the 95 % bootstrap interval of the rank.
        high (int): Its upper end.
        status (str): ``top``, ``behind`` or ``undecided``.
    """

    rank: int
    low: int
    high: int
    status: Status

    @property
    def sign(self) -> str:
        """The status as a mark."""
        return _SIGNS[self.status]

    def __str__(self) -> str:
        interval = f"{self.low}" if self.low == self.high else f"{self.low}-{self.high}"
        return f"{self.sign} {self.rank} [{interval}]"


@dataclass(frozen=True)
class Family:
    """A family of measures, decided by one score.

    Attributes:
        name (str): What it is called.
        score (Score): The score that decides.
        n (int): Samples that the ranked methods have in common.
        standings (mapping of str to Standing): Of the ranked methods.
        unranked (mapping of str to int): Methods with too few samples, to their number.
        means (mapping of str to float): The mean of each method over its own samples.
    """

    name: str
    score: Score
    n: int
    standings: Mapping[str, Standing]
    unranked: Mapping[str, int]
    means: Mapping[str, float]


def families(measured: Measured, methods: Sequence[str]) -> list[Family]:
    """The families that a run has measured, with the standing of each method.

    Args:
        measured (Measured): The values.
        methods (sequence of str): The methods.
    """
    found = []
    for name, (category, deciding) in _DECIDING.items():
        score = _score(measured, methods, category, deciding)
        family = None if score is None else _family(measured, methods, name, score)
        if family is not None:
            found.append(family)
    return found


def _score(
    measured: Measured, methods: Sequence[str], category: str, deciding: Sequence[str]
) -> Score | None:
    by_name = {score.name: score for score in measured.scores}
    found = [by_name[name] for name in deciding if name in by_name]
    if found:
        return max(found, key=lambda score: len(_ranked(measured, methods, score)))
    return next((score for score in measured.scores if score.category == category), None)


def _ranked(measured: Measured, methods: Sequence[str], score: Score) -> list[str]:
    """The methods that have enough samples to be ranked."""
    sizes = {method: int(measured.having(method, score).sum()) for method in methods}
    most = max(sizes.values(), default=0)
    return [method for method, n in sizes.items() if n and n >= _LEAST_SHARE * most]


def _family(measured: Measured, methods: Sequence[str], name: str, score: Score) -> Family | None:
    sizes = {method: int(measured.having(method, score).sum()) for method in methods}
    ranked = _ranked(measured, methods, score)
    shared = np.ones(measured.n_samples, dtype=bool)
    for method in ranked:
        shared &= measured.having(method, score)
    if len(ranked) < 2 or not shared.any():
        return None
    sign = -1 if score.higher_is_better else 1  # small is good from here on
    values = sign * np.stack([measured.values(method, score)[shared] for method in ranked], axis=1)
    means = values.mean(0)
    best = ranked[int(means.argmin())]
    drawn = np.sort(_ranks(resampled_means(values, _N_RESAMPLES)), axis=0)
    low, high = (drawn[int(share * (len(drawn) - 1))] for share in (0.025, 0.975))
    table = make_table(measured, ranked, [score], ALL_SAMPLES, shared, reference=best)
    standings = {}
    for place, method in enumerate(ranked):
        cell = table.cells[method, score.name]
        status: Status = "undecided"
        if cell.corrected and not cell.better:
            status = "behind"
        elif low[place] == 1 and not (cell.significant and not cell.better):
            status = "top"
        rank = int(_ranks(means[None])[0, place])
        standings[method] = Standing(rank, int(low[place]), int(high[place]), status)
    unranked = {method: n for method, n in sizes.items() if n and method not in standings}
    means_of = {
        method: float(np.mean(measured.values(method, score)[measured.having(method, score)]))
        for method, n in sizes.items()
        if n
    }
    return Family(name, score, int(shared.sum()), standings, unranked, means_of)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks in each row of R x M, 1 for the smallest; equal values share the better one."""
    ordered = torch.from_numpy(np.sort(values, axis=1))
    # Rounding is no difference.
    slack = 1e-6 * (1 + np.abs(values))
    return torch.searchsorted(ordered, torch.from_numpy(values - slack)).numpy() + 1


@dataclass(frozen=True)
class Cell:
    """What a verdict says of a method in a column.

    Attributes:
        text (str): What it says.
        status (str or None): The status, where all runs in the column agree on it.
        rank (float or None): The mean rank.
    """

    text: str
    status: Status | None = None
    rank: float | None = None


@dataclass(frozen=True)
class VerdictTable:
    """A verdict: one line a method.

    Attributes:
        title (str): What it is about.
        heads (sequence of str): What stands above the columns after the method's.
        lines (mapping of str to sequence of Cell): Of each method, the best one first.
        notes (sequence of str): What the letters in it stand for, if there are any.
    """

    title: str
    heads: Sequence[str]
    lines: Mapping[str, Sequence[Cell]]
    notes: Sequence[str] = ()


def verdict_tables(verdicts: Mapping[str, Sequence[Family]]) -> list[VerdictTable]:
    """The verdict of each run, and before them one over all, if there are several.

    Args:
        verdicts (mapping of str to sequence of Family): Title of a run to its families.

    Returns:
        list of VerdictTable: The first one has a column for each family, in which a method has its
        standing in each run that measured it, and only methods that stand in two runs at least.
    """
    each = [_table(title, found) for title, found in verdicts.items()]
    return [_over_all(verdicts), *each] if len(each) > 1 else each


def _table(title: str, found: Sequence[Family]) -> VerdictTable:
    lines = {m: [_cell(one, m) for one in found] for m in _best_first(found)}
    return VerdictTable(title, [_heading(one) for one in found], lines)


def _over_all(verdicts: Mapping[str, Sequence[Family]]) -> VerdictTable:
    judged = {
        letter: (title, [one for one in found if one.name != _COST])
        for letter, (title, found) in zip(string.ascii_lowercase, verdicts.items(), strict=False)
    }
    columns: dict[str, dict[str, Family]] = {}
    for name in _DECIDING:
        of_runs = {k: one for k, (_, found) in judged.items() for one in found if one.name == name}
        if of_runs:
            columns[name] = of_runs
    heads = [f"{name} ({' '.join(of_runs)})" for name, of_runs in columns.items()]
    standing = [one for of_runs in columns.values() for one in of_runs.values()]
    costs = {
        method: one.means[method]
        for found in reversed(list(verdicts.values()))
        for one in found
        if one.name == _COST
        for method in one.means
    }
    lines = {}
    for method in _best_first(standing):
        if sum(method in one.standings for one in standing) < 2:
            continue
        lines[method] = [_joined(list(of_runs.values()), method) for of_runs in columns.values()]
        if costs:
            lines[method].append(Cell(f"{costs[method]:,.0f}" if method in costs else "-"))
    notes = [
        f"{letter}: {title} ({'; '.join(f'{one.score.name}, n = {one.n}' for one in found)})"
        for letter, (title, found) in judged.items()
        if found
    ]
    return VerdictTable("All together", [*heads, *([_COST] if costs else [])], lines, notes)


def verdict_markdown(verdicts: Mapping[str, Sequence[Family]]) -> str:
    """The verdict in Markdown: one line a method, for each run.

    Args:
        verdicts (mapping of str to sequence of Family): As for :func:`verdict_tables`.
    """
    parts = []
    for table in verdict_tables(verdicts):
        lines = [["method", *table.heads], ["---"] * (1 + len(table.heads))]
        lines += [[m, *(cell.text for cell in cells)] for m, cells in table.lines.items()]
        parts.append(f"# {table.title}\n")
        whole = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
        if table.notes:  # without them nobody knows what the heads mean
            notes = "\n".join(f"- {note}" for note in table.notes) + "\n"
            parts += [LEGEND + "\n", notes, whole]
        else:
            parts += [whole, LEGEND + "\n"]
    return "\n".join(parts)


#: How to read it.
LEGEND = (
    "Rank [95 % bootstrap interval of the rank]. ▲ at the top: no method is significantly better. "
    "▼ significantly behind the best mean, also after Holm's correction. · undecided at this n. "
    "Cost: images that the network is shown for one map."
)


def _heading(family: Family) -> str:
    n = "" if family.name == _COST else f", n = {family.n}"
    return f"{family.name}: {family.score.name}{n}"


def _best_first(found: Sequence[Family]) -> list[str]:
    """The methods: those that are at the top most often first, then by their places among all."""
    methods = list(dict.fromkeys(m for one in found for m in (*one.standings, *one.unranked)))
    judged = [one for one in found if one.name != _COST] or list(found)

    def order(method: str) -> tuple[int, float]:
        in_them = [one for one in judged if method in one.standings]
        tops = sum(one.standings[method].status == "top" for one in in_them)
        places = [one.standings[method].rank / len(one.standings) for one in in_them]
        return -tops, float(np.mean(places)) if places else float("inf")

    return sorted(methods, key=order)


def _cell(family: Family, method: str) -> Cell:
    """What a family says of a method: its standing, or what it costs."""
    if family.name == _COST and method in family.means:
        return Cell(f"{family.means[method]:,.0f}")
    if method in family.standings:
        standing = family.standings[method]
        return Cell(str(standing), standing.status, standing.rank)
    only = f"n = {family.unranked[method]} only" if method in family.unranked else "-"
    return Cell(only)


def _joined(of_runs: Sequence[Family], method: str) -> Cell:
    """Its standings in the same family of several runs."""
    standings = [one.standings.get(method) for one in of_runs]
    known = [one for one in standings if one is not None]
    if not known:
        return Cell("-")
    said = ["-" if one is None else f"{one.sign}{one.rank}" for one in standings]
    text = "\N{NO-BREAK SPACE}".join(said)  # in one line, below the letters of the runs
    statuses = {one.status for one in known}
    rank = float(np.mean([one.rank for one in known]))
    return Cell(text, statuses.pop() if len(statuses) == 1 else None, rank)
