"""How often each measure prefers the map that is known to be better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from captum_groupcam.metrics.bootstrap import Interval, bootstrap_mean

from ...measures.registry import MEASURES
from ...report.files import number, spread
from ...run.rows import COST, Row

__all__ = ["LADDERS", "MAPS", "Judged", "csv_of", "judged", "markdown_of", "rankable"]

_SHIFTS = ("truth", *(f"truth:shift={share}" for share in (0.05, 0.1, 0.2, 0.35, 0.5)))
_NOISES = ("truth", *(f"truth:noise={share}" for share in (0.2, 0.5, 0.8)), "random")
_BLURS = ("truth:blur=0.03", "truth:blur=0.08")
_GOOD = ("truth", *_BLURS, "truth:shift=0.05", "truth:noise=0.2")
_BAD = ("truth:shift=0.35", "truth:shift=0.5", "truth:noise=0.8", "random", "centre", "edges")

#: The maps, as methods of a run.
MAPS: tuple[str, ...] = tuple(dict.fromkeys((*_GOOD, *_SHIFTS, *_NOISES, *_BAD)))
#: Kind of comparison to its pairs, the better map first. Shifts beyond the size of the evidence are
#: all equally wrong, so only some of them are ordered.
LADDERS: Mapping[str, Sequence[tuple[str, str]]] = {
    "good above bad": list(product(_GOOD, _BAD)),
    "by shift": [
        *((_SHIFTS[0], worse) for worse in _SHIFTS[1:]),
        *((_SHIFTS[1], worse) for worse in _SHIFTS[3:]),
        *((_SHIFTS[2], worse) for worse in _SHIFTS[4:]),
    ],
    "by noise": list(combinations(_NOISES, 2)),
}
_FIRST = next(iter(LADDERS))
#: What the lower end of the interval of "good above bad" says, from the best down.
_VERDICTS = ((0.9, "ranks"), (0.75, "ranks, with errors"), (0.5, "barely ranks"))
_CANNOT = "does not rank"


@dataclass(frozen=True)
class Judged:
    """What a score is worth.

    Attributes:
        score (str): Its name.
        measure (str): The measure that gives it.
        category (str): The measure's category.
        shares (mapping of str to Interval): Kind of comparison to the share of pairs in which the
            better map has the better score, equal scores counted half: the mean over images.
        failed (int): Images and maps without a score.
    """

    score: str
    measure: str
    category: str
    shares: Mapping[str, Interval]
    failed: int

    @property
    def verdict(self) -> str:
        """Whether it ranks known-good maps above known-bad ones."""
        low = self.shares[_FIRST].low
        return next((text for bound, text in _VERDICTS if low > bound), _CANNOT)


def rankable() -> list[str]:
    """The measures that rank maps: those that explain again judge methods, not maps."""
    return [name for name, one in MEASURES.items() if not one.needs & {"explain", "batch"}]


def judged(rows: Iterable[Row], measures: Mapping[str, Mapping[str, object]]) -> list[Judged]:
    """Judges every score of a run over :data:`MAPS`.

    Args:
        rows (iterable of Row): The rows.
        measures (mapping): The measures as the configuration of a run has them.

    Returns:
        list of Judged: The best first.
    """
    values: dict[str, dict[str, dict[str, float]]] = {}
    failed: dict[str, int] = {}
    for row in rows:
        if row.error:
            failed[row.measure] = failed.get(row.measure, 0) + 1
        for score, value in row.scores.items():
            values.setdefault(score, {}).setdefault(row.sample, {})[row.method] = value
    found = []
    for measure, about in measures.items():
        if measure == COST:
            continue
        directions = about["scores"]
        assert isinstance(directions, Mapping)
        for score, higher in directions.items():
            shares = {
                kind: _interval(values.get(score, {}), pairs, 1 if higher else -1)
                for kind, pairs in LADDERS.items()
            }
            if any(interval is None for interval in shares.values()):
                continue
            known = {kind: interval for kind, interval in shares.items() if interval is not None}
            category = str(about["category"])
            found.append(Judged(score, measure, category, known, failed.get(measure, 0)))
    return sorted(found, key=lambda one: -one.shares[_FIRST].mean)


def _interval(
    by_sample: Mapping[str, Mapping[str, float]], pairs: Sequence[tuple[str, str]], sign: int
) -> Interval | None:
    shares = []
    for scores in by_sample.values():
        known = [
            sign * (scores[better] - scores[worse])
            for better, worse in pairs
            if better in scores and worse in scores
        ]
        if known:
            right = sum(1.0 if gain > 0 else 0.5 if gain == 0 else 0.0 for gain in known)
            shares.append(right / len(known))
    return bootstrap_mean(shares) if shares else None


def markdown_of(found: Sequence[Judged]) -> str:
    """The table in Markdown."""
    kinds = list(LADDERS)
    lines = [
        "| score | category | " + " | ".join(kinds) + " | n | verdict |",
        "| --- " * (len(kinds) + 4) + "|",
    ]
    for one in found:
        cells = [
            f"{number(one.shares[kind].mean, 2)} {spread(one.shares[kind], 2)}" for kind in kinds
        ]
        n = f"{one.shares[_FIRST].n}" + (f" ({one.failed} failed)" if one.failed else "")
        about = [f"`{one.score}`", one.category]
        lines.append("| " + " | ".join([*about, *cells, n, one.verdict]) + " |")
    return "\n".join(lines) + "\n"


def csv_of(found: Sequence[Judged]) -> str:
    """The table as CSV: a line for each score and kind of comparison."""
    lines = ["score,measure,category,comparison,n,failed,mean,low,high,verdict"]
    for one in found:
        for kind, share in one.shares.items():
            lines.append(
                f"{one.score},{one.measure},{one.category},{kind},{share.n},{one.failed},"
                f'{share.mean},{share.low},{share.high},"{one.verdict}"'
            )
    return "\n".join(lines) + "\n"
