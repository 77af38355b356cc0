"""The verdict: for each family of measures, who is at the top, who is behind, what is undecided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import torch

from captum_groupcam.metrics.bootstrap import resampled_means

from .measured import Measured, Score
from .tables import ALL_SAMPLES, make_table

__all__ = [
    "LEGEND",
    "Family",
    "Standing",
    "cell",
    "families",
    "heading",
    "methods_of",
    "together",
    "verdict_markdown",
]

#: ``top``: no method is significantly better, and first in at least one in forty resamples.
#: ``behind``: significantly worse than the best mean, also after Holm's correction.
#: ``undecided``: neither.
Status: TypeAlias = Literal["top", "behind", "undecided"]

#: The family that is no matter of ranks.
_COST = "cost"
#: Family to the scores that decide, of which the first that a run has counts. Where none is there,
#: it is the first score of the family's category.
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
        score = _score(measured, category, deciding)
        family = None if score is None else _family(measured, methods, name, score)
        if family is not None:
            found.append(family)
    return found


def _score(measured: Measured, category: str, deciding: Sequence[str]) -> Score | None:
    by_name = {score.name: score for score in measured.scores}
    for name in deciding:
        if name in by_name:
            return by_name[name]
    return next((score for score in measured.scores if score.category == category), None)


def _family(measured: Measured, methods: Sequence[str], name: str, score: Score) -> Family | None:
    sizes = {method: int(measured.having(method, score).sum()) for method in methods}
    most = max(sizes.values(), default=0)
    ranked = [method for method, n in sizes.items() if n and n >= _LEAST_SHARE * most]
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


def together(verdicts: Mapping[str, Sequence[Family]]) -> dict[str, Sequence[Family]]:
    """All sections in one, before each by itself, if there are several.

    Args:
        verdicts (mapping of str to sequence of Family): Title of a section to its families.

    Returns:
        dict of str to sequence of Family: With a first entry whose families are those of all
        sections, each with its section's title in its name; a method's cost is the first that is
        known.
    """
    if len(verdicts) < 2:
        return dict(verdicts)
    named = [(title, one) for title, found in verdicts.items() for one in found]
    judged = [
        replace(one, name=f"{one.name}, {title}") for title, one in named if one.name != _COST
    ]
    costs = [one for _, one in named if one.name == _COST]
    means = {method: mean for one in reversed(costs) for method, mean in one.means.items()}
    cost = [replace(one, means=means) for one in costs[:1]]
    return {"All together": [*judged, *cost], **verdicts}


def verdict_markdown(verdicts: Mapping[str, Sequence[Family]]) -> str:
    """The verdict in Markdown: one line a method, for each section.

    Args:
        verdicts (mapping of str to sequence of Family): Title of a section to its families.
    """
    parts = []
    for title, found in verdicts.items():
        heads = ["method", *(heading(one) for one in found)]
        lines = [heads, ["---"] * len(heads)]
        lines += [[method, *(cell(one, method) for one in found)] for method in methods_of(found)]
        parts.append(f"# {title}\n")
        parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
        parts.append(LEGEND + "\n")
    return "\n".join(parts)


def heading(family: Family) -> str:
    """What stands above the column of a family."""
    n = "" if family.name == _COST else f", n = {family.n}"
    return f"{family.name}: {family.score.name}{n}"


#: How to read it.
LEGEND = (
    "Rank [95 % bootstrap interval of the rank]. ▲ at the top: no method is significantly better. "
    "▼ significantly behind the best mean, also after Holm's correction. · undecided at this n. "
    "Cost: images that the network is shown for one map."
)


def methods_of(found: Sequence[Family]) -> list[str]:
    """The methods of families: those that are at the top most often first, then by their ranks."""
    methods = list(dict.fromkeys(m for one in found for m in (*one.standings, *one.unranked)))
    judged = [one for one in found if one.name != _COST] or list(found)

    def order(method: str) -> tuple[int, float]:
        standings = [one.standings[method] for one in judged if method in one.standings]
        tops = sum(standing.status == "top" for standing in standings)
        ranks = [standing.rank for standing in standings]
        return -tops, float(np.mean(ranks)) if ranks else float("inf")

    return sorted(methods, key=order)


def cell(family: Family, method: str) -> str:
    """What a family says of a method: its standing, or what it costs."""
    if family.name == _COST and method in family.means:
        return f"{family.means[method]:,.0f}"
    if method in family.standings:
        return str(family.standings[method])
    return f"n = {family.unranked[method]} only" if method in family.unranked else "-"
