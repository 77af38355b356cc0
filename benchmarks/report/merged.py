"""The rows of a section: those of its runs put together, each key once, in columns."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..run.intake import restored, storable
from ..run.rows import RowError
from ..run.table import RowTable

__all__ = ["About", "Curves", "Incident", "MergedRows"]

#: Scores that depend on the machine, and on what else it does.
_TIMES = ("seconds", "forward_passes")
#: Machines round differently; more than this is another result.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6
#: Stands for "after all places": failures count less than results.
_LATE = 2**52


@dataclass(frozen=True)
class About:
    """What is known of the samples of a section, an entry for each.

    Attributes:
        samples (sequence of str): Their ids.
        labels (sequence of str): Their labels.
        cover (numpy.ndarray): Share of the image that their objects cover; NaN if unknown.
        difficult (numpy.ndarray): Whether they belong to the difficult subset.
    """

    samples: Sequence[str]
    labels: Sequence[str]
    cover: NDArray[np.float64]
    difficult: NDArray[np.bool_]


@dataclass(frozen=True)
class Curves:
    """The curves of a method.

    Attributes:
        places (numpy.ndarray): The samples that have them, as places among all.
        axis (numpy.ndarray or None): What the first of them is drawn over.
        by_name (mapping of str to numpy.ndarray): N x K, one a sample.
    """

    places: NDArray[np.int64]
    axis: NDArray[np.float64] | None
    by_name: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Incident:
    """Something that went wrong, or a warning.

    Args:
        method (str): The method; empty if a sample could not be loaded.
        measure (str): The measure.
        text (str): What was said.
        count (int): Rows that say it.
        sample (str): One of the samples.
    """

    method: str
    measure: str
    text: str
    count: int
    sample: str


class MergedRows:
    """The rows of several runs, each key once; a result counts more than a failure.

    Of several results the first one counts, which may have other seconds than the rest.

    Args:
        table (RowTable): Where the rows are.
        title (str): The section's title.
        runs (sequence of int): The runs.
        methods (sequence of str): The methods, in their order.
        measures (sequence of str): The measures, in their order.

    Raises:
        RowError: If a key has different scores, or a sample different contents.
    """

    def __init__(
        self,
        table: RowTable,
        title: str,
        runs: Sequence[int],
        methods: Sequence[str],
        measures: Sequence[str],
    ) -> None:
        self._table = table
        table.query("CREATE TABLE IF NOT EXISTS sections (id INTEGER, section VARCHAR)")
        ((self._section,),) = table.query("SELECT count(*) FROM sections")
        table.query("INSERT INTO sections VALUES ($1, $2)", [self._section, storable(title)])
        self._check_contents(list(runs))
        if len(runs) > 1:
            self._check_scores(list(runs))
        table.query(
            """
            CREATE TABLE IF NOT EXISTS keys
                (id INTEGER, source BIGINT, failed BOOLEAN, sample_place INTEGER, place BIGINT)
            """
        )
        table.query(
            """
            CREATE VIEW IF NOT EXISTS merged AS
            SELECT sections.*, keys.failed, keys.sample_place, keys.place, raw.*
            FROM keys JOIN raw ON keys.source = raw.rowid JOIN sections USING (id)
            """
        )
        table.query(
            """
            INSERT INTO keys
            WITH best AS (
                SELECT sample, method, measure, bool_and(failed) AS failed,
                    arg_min(source, place + $late * failed::BIGINT) AS source
                FROM rows WHERE list_contains($runs, run) GROUP BY sample, method, measure
            ), used AS (
                SELECT * FROM best
                WHERE method <> '' OR sample NOT IN (SELECT sample FROM best WHERE method <> '')
            )
            SELECT $section, source, failed, dense_rank() OVER (ORDER BY sample) - 1,
                (SELECT count(*) FROM keys) + row_number() OVER (ORDER BY sample,
                    list_position($methods::VARCHAR[], method) NULLS FIRST,
                    list_position($measures::VARCHAR[], measure) NULLS FIRST)
            FROM used
            """,
            {
                "late": _LATE,
                "runs": list(runs),
                "section": self._section,
                "methods": [*map(storable, methods)],
                "measures": [*map(storable, measures)],
            },
        )
        table.query(
            """
            CREATE TABLE IF NOT EXISTS scores
                (id INTEGER, method VARCHAR, measure VARCHAR, score VARCHAR, sample_place INTEGER,
                value DOUBLE)
            """
        )
        table.query(
            """
            INSERT INTO scores
            SELECT id, method, measure, unnest(map_keys(scores)) AS score, sample_place,
                unnest(map_values(scores))
            FROM merged WHERE id = $1 ORDER BY method, measure, score
            """,
            [self._section],
        )

    def __len__(self) -> int:
        return int(self._rows("SELECT count(*) FROM keys WHERE id = $section")[0][0])

    # --- what tables and figures are made of

    def about(self) -> About:
        """What is known of the samples; a failure need not know it."""
        columns = self._columns(
            """
            SELECT DISTINCT ON (sample_place) sample_place, sample, coalesce(label, '') AS label,
                coalesce(cover, 'nan'::DOUBLE) AS cover, coalesce(difficult, false) AS difficult
            FROM merged WHERE id = $section ORDER BY sample_place, failed, place
            """
        )
        return About(
            [*map(restored, columns["sample"])],
            [*map(restored, columns["label"])],
            np.asarray(columns["cover"]),
            np.asarray(columns["difficult"]),
        )

    def scored(self) -> set[tuple[str, str, str]]:
        """Method, measure and name of every score that there is."""
        found = self._rows("SELECT DISTINCT method, measure, score FROM scores WHERE id = $section")
        return {(restored(method), restored(measure), score) for method, measure, score in found}

    def values(
        self, method: str, measure: str, score: str
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The values of a score, with the samples that they are of, as places among all."""
        columns = self._columns(
            "SELECT sample_place, value FROM scores WHERE id = $section AND method = $method "
            "AND measure = $measure AND score = $score",
            method=storable(method),
            measure=storable(measure),
            score=score,
        )
        return np.asarray(columns["sample_place"]), np.asarray(columns["value"])

    def failed(self) -> dict[tuple[str, str], NDArray[np.int64]]:
        """Method and measure to the samples without a result, as places among all."""
        found = self._rows(
            "SELECT method, measure, list(sample_place) FROM merged WHERE id = $section AND failed "
            "GROUP BY method, measure"
        )
        return {
            (restored(method), restored(measure)): np.array(places)
            for method, measure, places in found
        }

    def curve_names(self) -> dict[str, set[str]]:
        """Measure to the names of its curves."""
        found = self._rows(
            "SELECT DISTINCT measure, unnest(map_keys(curves)) FROM merged WHERE id = $section"
        )
        names: dict[str, set[str]] = {}
        for measure, name in found:
            names.setdefault(restored(measure), set()).add(name)
        return names

    def curves(self, measure: str, method: str, names: Sequence[str]) -> Curves:
        """The curves of a method.

        Args:
            measure (str): Their measure.
            method (str): The method.
            names (sequence of str): Their names.
        """
        those = "FROM merged WHERE id = $section AND measure = $measure AND method = $method "
        those += "AND cardinality(curves) > 0 ORDER BY sample_place"
        given = {"measure": storable(measure), "method": storable(method)}
        places = self._columns(f"SELECT sample_place {those}", **given)["sample_place"]
        axis = [one for (one,) in self._rows(f"SELECT axis {those} LIMIT 1", **given) if one]
        by_name = {}
        for name in names if len(places) else ():
            found = self._columns(f"SELECT curves[$name] AS curve {those}", **given, name=name)
            by_name[name] = np.stack([*found["curve"]])
        return Curves(np.asarray(places), np.array(axis[0]) if axis else None, by_name)

    # --- what is said of single samples

    def hits(self, measure: str | None, samples: Collection[str]) -> dict[tuple[str, str], float]:
        """The first score of a measure, by sample and method."""
        found = self._rows(
            "SELECT sample, method, map_values(scores)[1] FROM merged WHERE id = $section "
            "AND measure = $measure AND cardinality(scores) > 0 "
            "AND list_contains($samples::VARCHAR[], sample)",
            measure=storable(measure or ""),
            samples=[*map(storable, samples)],
        )
        return {(restored(sample), restored(method)): hit for sample, method, hit in found}

    def failures(self) -> list[Incident]:
        """What went wrong, the most frequent first."""
        return self._incidents("SELECT *, error AS said, 0 AS nth FROM merged WHERE failed")

    def warnings(self) -> list[Incident]:
        """The warnings, the most frequent first."""
        return self._incidents(
            "SELECT *, unnest(warnings) AS said, generate_subscripts(warnings, 1) AS nth "
            "FROM merged WHERE len(warnings) > 0"
        )

    def _incidents(self, said: str) -> list[Incident]:
        found = self._rows(
            f"""
            SELECT method, measure, said, count(*) AS n, arg_min(sample, place)
            FROM ({said}) WHERE id = $section
            GROUP BY method, measure, said ORDER BY n DESC, min((place, nth))
            """
        )
        return [
            Incident(restored(method), restored(measure), restored(text), n, restored(sample))
            for method, measure, text, n, sample in found
        ]

    def write_all(self, path: Path) -> None:
        """Writes the rows of all sections of the report, each with its section.

        Raises:
            RowError: If they cannot be written.
        """
        self._table.write(path, "merged", ["section"])

    # --- checks

    def _check_contents(self, runs: list[int]) -> None:
        found = self._table.query(
            """
            SELECT sample FROM rows
            WHERE list_contains($1, run) AND NOT failed AND digest <> ''
            GROUP BY sample HAVING min(digest) <> max(digest) ORDER BY min(place) LIMIT 1
            """,
            [runs],
        )
        for (sample,) in found:
            raise RowError(
                f"Runs of other data: the picture, class or annotation of {restored(sample)!r} is "
                "not the same in all of them. Report them apart, or leave one out."
            )

    def _check_scores(self, runs: list[int]) -> None:
        found = self._table.query(
            """
            WITH results AS (
                SELECT sample, method, measure, scores, place,
                    first_value(scores) OVER (
                        PARTITION BY sample, method, measure ORDER BY place
                    ) AS before
                FROM rows WHERE list_contains($1, run) AND NOT failed
            )
            SELECT sample, method, measure, before, scores FROM results
            WHERE before IS DISTINCT FROM scores ORDER BY place
            """,
            [runs],
        )
        for sample, method, measure, before, after in found:
            if not _agree(before or {}, after or {}):
                raise RowError(
                    f"Two runs contradict each other: sample {restored(sample)!r}, method "
                    f"{restored(method)!r}, measure {restored(measure)!r} has the scores "
                    f"{before or {}} and {after or {}}. Report them apart, or leave one out."
                )

    def _rows(self, sql: str, **parameters: Any) -> list[Any]:
        return self._table.query(sql, {"section": self._section, **parameters})

    def _columns(self, sql: str, **parameters: Any) -> dict[str, Any]:
        return self._table.arrays(sql, {"section": self._section, **parameters})


def _agree(before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    return before.keys() == after.keys() and all(
        name in _TIMES or math.isclose(value, after[name], rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
        for name, value in before.items()
    )
