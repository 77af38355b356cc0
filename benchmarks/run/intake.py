"""Files of rows, read into the columnar engine as strictly as a row is read by itself."""

from __future__ import annotations

import glob
import json
import lzma
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb

from .rows import AXIS, RowError, length_of_whole_lines, parsed

__all__ = ["AXES", "TYPES", "quoted", "read_file", "restored", "storable"]

#: The columns of rows: the fields of :class:`~benchmarks.run.rows.Row`, and `axis`, the curve that
#: the others are drawn over. In a file it is a number, its place in the list of all axes.
TYPES: Mapping[str, str] = {
    "sample": "VARCHAR",
    "method": "VARCHAR",
    "measure": "VARCHAR",
    "scores": "MAP(VARCHAR, DOUBLE)",
    "seconds": "DOUBLE",
    "queries": "BIGINT",
    "label": "VARCHAR",
    "target": "BIGINT",
    "cover": "DOUBLE",
    "difficult": "BOOLEAN",
    "axis": "DOUBLE[]",
    "curves": "MAP(VARCHAR, DOUBLE[])",
    "warnings": "VARCHAR[]",
    "digest": "VARCHAR",
    "error": "VARCHAR",
}
#: Where a Parquet file of rows keeps the axes of its curves, each once.
AXES = "axes"

_TEXT, _NUMBER, _WHOLE = {"VARCHAR"}, {"DOUBLE", "UBIGINT", "BIGINT"}, {"UBIGINT", "BIGINT"}
#: What the engine may find in a field for its line to be a row beyond doubt.
_PLAIN: Mapping[str, set[str]] = {
    **dict.fromkeys(("sample", "method", "measure", "label", "digest", "error"), _TEXT),
    **dict.fromkeys(("seconds", "cover"), _NUMBER),
    **dict.fromkeys(("queries", "target"), _WHOLE),
    "difficult": {"BOOLEAN"},
}
#: What has no place in Unicode text, as in names of files, and what stands for it in the engine:
#: the end of a plane for private use.
_LONE = {0xD800 + index: 0x10F000 + index for index in range(0x800)}
_BACK = {stand_in: lone for lone, stand_in in _LONE.items()}
_FIRST_STAND_IN = chr(min(_BACK))
#: Not finite, or curves of different lengths, or without a name.
_ODD = """
    sample IS NULL OR method IS NULL OR measure IS NULL
    OR NOT isfinite(coalesce(seconds, 0)) OR NOT isfinite(coalesce(cover, 0))
    OR NOT isfinite(coalesce(list_sum(map_values(scores)), 0))
    OR NOT isfinite(coalesce(list_sum(axis), 0))
    OR NOT isfinite(
        coalesce(list_sum(list_transform(map_values(curves), lambda curve: list_sum(curve))), 0)
    )
    OR len(list_distinct(list_append(
        list_transform(map_values(curves), lambda curve: len(curve)), len(axis)
    ))) > 1
"""


class _OddError(Exception):
    """Rows that may not be rows."""


def read_file(
    connection: duckdb.DuckDBPyConnection, run: int, path: Path, work_folder: Path
) -> None:
    """Appends the rows of a file to the table ``raw``.

    Args:
        connection (duckdb.DuckDBPyConnection): The engine.
        run (int): Whose rows they are.
        path (Path): JSON lines, plain or compressed (``.xz``), or Parquet. A last line without an
            end is one that a killed process did not finish; it is left out.
        work_folder (Path): Where copies may lie.

    Raises:
        RowError: If a line is no row, which the message names, or the file cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            _append(connection, run, *_from_parquet(connection, path))
            return
        lines = _whole_lines(path, work_folder)
        try:
            _append_lines(connection, run, lines)
        except (_OddError, duckdb.Error):
            # Line by line: what is wrong is named, and what is only strange is put plainly.
            plain = work_folder / "plain.jsonl"
            with lines.open("rb") as source, plain.open("wb") as target:
                target.writelines(_plain(path, source))
            _append_lines(connection, run, plain, trusted=True)
            plain.unlink()
        if lines != path:
            lines.unlink()
    except (_OddError, duckdb.Error, OSError, lzma.LZMAError, EOFError) as error:
        said = str(error).partition("\n")[0] or "they are not rows of a run"
        raise RowError(f"{path} cannot be read: {said}.") from error


def storable(text: str) -> str:
    """A text as the engine keeps it."""
    return text.translate(_LONE)


def restored(text: str) -> str:
    """A text of the engine, with what has no place in Unicode as it was."""
    return text.translate(_BACK) if max(text, default="") >= _FIRST_STAND_IN else text


def _plain(path: Path, lines: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        try:
            row = parsed(line)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise RowError(f"{path}, line {number}: not a row of a run ({error}).") from error
        yield storable(row.to_json()).encode() + b"\n"


def _whole_lines(path: Path, work_folder: Path) -> Path:
    """A file of nothing but whole lines: this one, or a copy."""
    if path.suffix != ".xz" and length_of_whole_lines(path) == path.stat().st_size:
        return path
    copy = work_folder / "lines.jsonl"
    if path.suffix == ".xz":
        with lzma.open(path) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
    else:
        shutil.copyfile(path, copy)
    os.truncate(copy, length_of_whole_lines(copy))
    return copy


def _append_lines(
    connection: duckdb.DuckDBPyConnection, run: int, path: Path, *, trusted: bool = False
) -> None:
    pattern = glob.escape(str(path))
    if not trusted:
        structures = connection.execute(
            "SELECT DISTINCT json_structure(json) FROM read_ndjson_objects($1)", [pattern]
        ).fetchall()
        if not all(_is_plain(json.loads(structure)) for (structure,) in structures):
            raise _OddError
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in TYPES.items() if name != "axis")
    lines = f"""
        SELECT * REPLACE (map_from_entries(
            list_filter(map_entries(curves), lambda one: one.key <> '{AXIS}')
        ) AS curves), curves['{AXIS}'] AS axis
        FROM read_json({quoted(pattern)}, format = 'newline_delimited', columns = {{{columns}}},
                       hive_partitioning = false)
    """
    _append(connection, run, lines)


def _is_plain(structure: Any) -> bool:
    """Whether lines of this structure are rows beyond doubt."""
    if not isinstance(structure, dict) or not structure.keys() >= {"sample", "method", "measure"}:
        return False
    for name, kind in structure.items():
        if name in ("scores", "curves"):
            inner = kind.values() if isinstance(kind, dict) else [None]
            wanted = [*_NUMBER] if name == "scores" else [[number] for number in _NUMBER]
            if not all(one in wanted for one in inner):
                return False
        elif name == "warnings":
            if kind != ["VARCHAR"]:
                return False
        elif not isinstance(kind, str) or kind not in _PLAIN.get(name, ()):
            return False
    return True


def _from_parquet(connection: duckdb.DuckDBPyConnection, path: Path) -> tuple[str, dict[str, Any]]:
    """A query for the rows of a file, which keeps their order, and its parameters."""
    pattern = glob.escape(str(path))
    found = connection.execute(
        "SELECT column_name, column_type FROM "
        "(DESCRIBE SELECT * FROM read_parquet($1, hive_partitioning = false))",
        [pattern],
    ).fetchall()
    if dict(found) != {**TYPES, "axis": "INTEGER"}:
        raise _OddError
    kept = connection.execute(
        "SELECT decode(value) FROM parquet_kv_metadata($1) WHERE decode(key) = $2", [pattern, AXES]
    ).fetchall()
    axes = json.loads(kept[0][0]) if kept else []
    rows = f"""
        SELECT * REPLACE (CAST($axes AS DOUBLE[][])[axis + 1] AS axis)
        FROM read_parquet({quoted(pattern)}, hive_partitioning = false)
    """
    return rows, {"axes": axes}


def _append(
    connection: duckdb.DuckDBPyConnection,
    run: int,
    rows: str,
    parameters: Mapping[str, Any] | None = None,
) -> None:
    """Appends what a query gives, in its order, all or nothing."""
    connection.begin()
    try:
        names = ", ".join(TYPES)
        connection.execute(f"INSERT INTO raw SELECT {run}, {names} FROM ({rows})", parameters)
        odd = connection.execute(f"SELECT count(*) FROM raw WHERE run = {run} AND ({_ODD})")
        if odd.fetchall() != [(0,)]:
            raise _OddError
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def quoted(text: str) -> str:
    """A text as a literal of SQL, where there can be no parameter."""
    return "'" + text.replace("'", "''") + "'"
