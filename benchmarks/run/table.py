"""Rows of runs in a columnar engine, out of core: read, each key once, looked up, written.

The engine is DuckDB. With a made run of 50,000 samples x 18 methods x 4 measures, 3.4 GB of JSON
lines, DuckDB 2.0 took 33 s of one core to read and 35 s to sort, in at most 1.0 GB. The streaming
engine of Polars 2.1 took 40 s and 24 s, but 3.4 and 4.3 GB, and has no limit on memory to set.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from .intake import AXES, TYPES, quoted, read_file, restored, storable
from .rows import AXIS, COST, Row, RowError

__all__ = ["RowTable", "read_rows"]

#: What the engine may hold in memory; the rest lies on the disk.
_MEMORY = "640MB"
_MAX_THREADS = 4


class RowTable:
    """Rows of one run or several, in a file for as long as the table is used.

    Tables of the engine: ``raw``, all rows that were read, with the number of their run; ``kept``,
    of each run's keys the row that counts; and ``rows``, these rows with their place in the run.

    Examples::

        >>> table = RowTable()
        >>> table.query("SELECT count(*) FROM rows")
        [(0,)]
    """

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="rows-"))
        self._folder = folder
        self._connection = duckdb.connect(
            str(folder / "rows.duckdb"),
            config={
                "memory_limit": _MEMORY,
                "threads": min(os.cpu_count() or 1, _MAX_THREADS),
                "temp_directory": str(folder),
            },
        )
        weakref.finalize(self, _discard, self._connection, folder)
        self._n_runs = 0
        columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
        self.query(f"CREATE TABLE raw (run INTEGER, {columns})")
        self.query("CREATE TABLE kept (run INTEGER, place BIGINT, source BIGINT, failed BOOLEAN)")
        self.query(
            "CREATE VIEW rows AS SELECT kept.place, kept.source, kept.failed, raw.* "
            "FROM kept JOIN raw ON kept.source = raw.rowid"
        )

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """The rows that a query gives.

        Raises:
            RowError: If the engine cannot answer it, as with a full disk.
        """
        return self._execute(sql, parameters).fetchall()

    def arrays(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> dict[str, Any]:
        """The columns that a query gives, as NumPy arrays.

        Raises:
            RowError: As from :meth:`query`.
        """
        return self._execute(sql, parameters).fetchnumpy()

    def _execute(self, sql: str, parameters: Any) -> duckdb.DuckDBPyConnection:
        try:
            return self._connection.execute(sql, parameters or None)
        except duckdb.Error as error:
            said = str(error).partition("\n")[0]
            raise RowError(f"The rows cannot be put together: {said}.") from error

    def read(self, paths: Iterable[Path]) -> int:
        """Reads the rows of a run: of each key the last result, or, without one, the last failure.

        Where a sample could be used in the end, its failures before are left out.

        Args:
            paths (iterable of Path): JSON lines, plain or compressed (``.xz``), or Parquet. A last
                line without an end is one that a killed process did not finish; it is left out.

        Returns:
            int: The run's number.

        Raises:
            RowError: If a line is no row, which the message names, or a file cannot be read.
        """
        run = self._n_runs
        self._n_runs += 1  # nothing is deleted, since that may change the numbers of rows
        for path in paths:
            read_file(self._connection, run, path, self._folder)
        # Files have no order in time: a failure may be older than the result of a retry.
        self.query(
            """
            INSERT INTO kept
            WITH keys AS (
                SELECT sample, method, min(rowid) AS place, bool_and(error IS NOT NULL) AS failed,
                    coalesce(max(rowid) FILTER (error IS NULL), max(rowid)) AS source
                FROM raw WHERE run = $run GROUP BY sample, method, measure
            )
            SELECT $run, place, source, failed FROM keys
            WHERE method <> '' OR sample NOT IN (SELECT sample FROM keys WHERE method <> '')
            """,
            {"run": run},
        )
        return run

    def rows(self, where: str = "true", limit: int | None = None) -> list[Row]:
        """The rows, in the order in which their keys come first.

        Args:
            where (str, optional): A condition on them. Default: none.
            limit (int, optional): At most so many. Default: None, all.
        """
        names = [*TYPES]
        found = self.query(
            f"SELECT {', '.join(names)} FROM rows WHERE {where} ORDER BY place"
            + ("" if limit is None else f" LIMIT {limit}")
        )
        return [_row(dict(zip(names, values, strict=True))) for values in found]

    # --- what a run asks before it goes on

    def done(self, *, retry: bool = False) -> dict[str, frozenset[tuple[str, str]]]:
        """What is done: failures, too, unless they are tried again.

        Where a sample or its map by a method failed, there is nothing more to do for it, which an
        empty name says: of method and measure, or of the measure.

        Args:
            retry (bool, optional): Whether failures are tried again. Default: False.

        Returns:
            dict: Sample to method and measure.
        """
        found = self.query(
            """
            WITH counted AS (
                SELECT sample, method, measure, error FROM rows WHERE NOT $retry OR error IS NULL
            ), done AS (
                SELECT sample, method, measure FROM counted
                UNION SELECT sample, method, '' FROM counted
                WHERE error IS NOT NULL AND measure = $cost
            ), by_sample AS (
                SELECT sample, list([method, measure] ORDER BY method, measure) AS pairs
                FROM done GROUP BY sample
            )
            SELECT pairs, list(sample) FROM by_sample GROUP BY pairs
            """,
            {"retry": retry, "cost": COST},
        )
        # Most samples have the same, which is kept once.
        return {
            restored(sample): pairs
            for listed, samples in found
            for pairs in (frozenset((restored(a), restored(b)) for a, b in listed),)
            for sample in samples
        }

    def begun(self) -> set[str]:
        """The samples of which there are maps, or failures of methods."""
        found = self.query("SELECT DISTINCT sample FROM rows WHERE method <> ''")
        return {restored(sample) for (sample,) in found}

    def samples_without_failures(self) -> list[str]:
        """The samples of which all rows are results, in their order."""
        found = self.query(
            "SELECT sample FROM rows GROUP BY sample HAVING NOT bool_or(failed) ORDER BY min(place)"
        )
        return [restored(sample) for (sample,) in found]

    def digests(self) -> dict[str, str]:
        """What tells the content of samples, as their results have it; runs of old do not say."""
        found = self.query(
            "SELECT sample, arg_max(digest, place) FROM rows "
            "WHERE digest <> '' AND error IS NULL GROUP BY sample"
        )
        return {restored(sample): digest for sample, digest in found}

    def count(self, where: str = "true") -> int:
        """The number of rows that meet a condition."""
        ((count,),) = self.query(f"SELECT count(*) FROM rows WHERE {where}")
        return int(count)

    # --- files

    def order(
        self, samples: Iterable[str], methods: Sequence[str], measures: Sequence[str]
    ) -> None:
        """Puts the rows in order: by sample, method and measure.

        Args:
            samples (iterable of str): In their order. Others go to the end, by name.
            methods (sequence of str): In their order.
            measures (sequence of str): In their order.
        """
        self.query(
            """
            CREATE OR REPLACE TABLE kept AS
            WITH places AS (
                SELECT unnest($samples::VARCHAR[]) AS sample,
                    generate_subscripts($samples::VARCHAR[], 1) AS known
            )
            SELECT run, row_number() OVER (ORDER BY known NULLS LAST, sample,
                list_position($methods::VARCHAR[], method) NULLS FIRST,
                list_position($measures::VARCHAR[], measure) NULLS FIRST) AS place, source, failed
            FROM rows LEFT JOIN places USING (sample)
            """,
            {
                "samples": [*map(storable, samples)],
                "methods": [*map(storable, methods)],
                "measures": [*map(storable, measures)],
            },
        )

    def write(self, path: Path, rows: str = "rows", more: Sequence[str] = ()) -> None:
        """Writes rows to a Parquet file, in order, all or nothing; axes of curves are kept once.

        Args:
            path (Path): The file; its folder is made if there is none.
            rows (str, optional): A table with their columns and their place. Default: all rows.
            more (sequence of str, optional): Its columns beside those of a row. Default: none.

        Raises:
            RowError: If it cannot be written; what was there stays.
        """
        self.query(
            f"CREATE OR REPLACE TEMP TABLE axes AS SELECT axis, row_number() OVER (ORDER BY first) "
            f"- 1 AS id FROM (SELECT axis, min(place) AS first FROM {rows} WHERE axis IS NOT NULL "
            "GROUP BY axis)"
        )
        axes = [axis for (axis,) in self.query("SELECT axis FROM axes ORDER BY id")]
        names = [*more, *(name for name in TYPES if name != "axis")]
        listed = ", ".join(f"{rows}.{name}" for name in names)
        listed = listed.replace(f"{rows}.curves", f"axes.id::INTEGER AS axis, {rows}.curves")
        unfinished = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.query(
                f"COPY (SELECT {listed} FROM {rows} LEFT JOIN axes ON {rows}.axis = axes.axis "
                f"ORDER BY place) TO {quoted(str(unfinished))} (FORMAT parquet, COMPRESSION zstd, "
                f"KV_METADATA {{{AXES}: '{json.dumps(axes)}'}})"
            )
            unfinished.replace(path)
        except OSError as error:
            raise RowError(f"{path} cannot be written: {error.strerror}.") from error
        finally:
            with suppress(OSError):
                unfinished.unlink()


def read_rows(paths: Iterable[Path]) -> list[Row]:
    """The rows of a run's files, as :meth:`RowTable.read` reads them.

    Args:
        paths (iterable of Path): The files.

    Returns:
        list of Row: In the order in which their keys come first.

    Raises:
        RowError: If a line is no row; the message names it.
    """
    table = RowTable()
    table.read(paths)
    return table.rows()


def _row(values: dict[str, Any]) -> Row:
    """A row from the columns that it has."""
    axis, curves = values.pop("axis"), values.pop("curves") or {}
    if axis is not None:
        curves = {AXIS: axis, **curves}
    known: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    for name in ("sample", "method", "measure", "label", "error"):
        if name in known:
            known[name] = restored(known[name])
    if "warnings" in known:
        known["warnings"] = [restored(text) for text in known["warnings"]]
    return Row(**known, curves=curves)


def _discard(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    connection.close()
    shutil.rmtree(folder, ignore_errors=True)
