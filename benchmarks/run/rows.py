"""The rows of a run: what was measured, one line of JSON each, appended as it is made."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeAlias

from filelock import FileLock, Timeout

from ..errors import RowError

__all__ = [
    "AXIS",
    "COST",
    "Key",
    "Row",
    "RowError",
    "RowWriter",
    "length_of_whole_lines",
    "parsed",
    "write_atomically",
]

#: The measure that every explanation gives by itself: its seconds and queries.
COST = "Cost"
#: The curve that the others of a row are drawn over: nearly always the same for all rows.
AXIS = "fraction"

#: Sample, method and measure: what a row is of.
Key: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True)
class Row:
    """What one measure says of one map, or why it says nothing.

    Args:
        sample (str): The sample's id.
        method (str): The method with its options, as in
            :class:`~captum_groupcam.methods.MethodSpec`; empty if the sample could not be used.
        measure (str): A name of :data:`~benchmarks.measures.registry.MEASURES`, or :data:`COST`;
            empty if the sample could not be used.
        scores (mapping of str to float, optional): The measure's scores. Default: none.
        seconds (float, optional): What it took. Default: 0.
        queries (int, optional): Images that the network was shown for it. Default: 0.
        label (str, optional): The sample's label. Default: "".
        target (int, optional): The class that is explained. Default: None, unknown.
        cover (float, optional): Share of the image that its objects cover. Default: None, unknown.
        difficult (bool, optional): Whether the sample belongs to the difficult subset.
            Default: False.
        curves (mapping of str to list, optional): Curves behind the scores, of equal length.
            Default: none.
        warnings (sequence of str, optional): Warnings that came up. Default: none.
        digest (str, optional): Tells the sample's content, picture and annotation, from another.
            Default: None, unknown.
        error (str, optional): Why there are no scores. Default: None.
    """

    sample: str
    method: str
    measure: str
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    queries: int = 0
    label: str = ""
    target: int | None = None
    cover: float | None = None
    difficult: bool = False
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    digest: str | None = None
    error: str | None = None

    @property
    def key(self) -> Key:
        """What the row is of."""
        return self.sample, self.method, self.measure

    def to_json(self) -> str:
        """The row as a line of JSON, without what is empty."""
        names = {"sample", "method", "measure"}
        values = {
            k: v for k, v in asdict(self).items() if k in names or v not in ({}, [], (), None)
        }
        return json.dumps(values, ensure_ascii=False, allow_nan=False)


class RowWriter:
    """Appends rows to a file that nobody else writes, each at once.

    What a killed process left half-written at the end is cut off first. If a row cannot be written
    (a full disk), nothing of it stays.

    Args:
        path (Path): The file; it is made if there is none.

    Raises:
        RowError: If another process is writing it, or it cannot be written.

    Examples::

        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results-0.jsonl"
        >>> with RowWriter(path) as writer:
        ...     writer.write(Row("a.jpg", "centre", "PointingGame", {"pointing_game": 1.0}))
        >>> [parsed(line).scores for line in path.read_bytes().splitlines()]
        [{'pointing_game': 1.0}]
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path.with_suffix(".lock"))
        self._file: BinaryIO | None = None

    def __enter__(self) -> RowWriter:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise RowError(
                f"Another run is writing {self._path}: wait for it or stop it."
            ) from error
        except OSError as error:
            raise self._failure(error) from error
        try:
            self._file = self._path.open("ab", buffering=0)
            self._file.truncate(length_of_whole_lines(self._path))
        except OSError as error:
            self._close()
            raise self._failure(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def write(self, row: Row) -> None:
        """Appends a row.

        Raises:
            RowError: If it cannot be written. The rows before it are safe.
        """
        assert self._file is not None, "a RowWriter is used in a with statement"
        before = os.fstat(self._file.fileno()).st_size
        line = _encoded(row)
        try:
            # A disk may take a part of a line before it is full.
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            self._file.truncate(before)
            raise self._failure(error) from error

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.release()

    def _failure(self, error: OSError) -> RowError:
        return RowError(
            f"{self._path} cannot be written: {error.strerror}. All rows before are kept; once "
            "this is put right, the same command continues from here."
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file, all or nothing, making its folder if there is none.

    Args:
        path (Path): The file.
        content (bytes): What it shall contain.

    Raises:
        RowError: If it cannot be written; what was there stays.
    """
    unfinished = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise RowError(f"{path} cannot be written: {error.strerror}.") from error


def _encoded(row: Row) -> bytes:
    """A row as a line. What of a file's name is no Unicode is escaped, in JSON's way."""
    return (row.to_json() + "\n").encode(errors="backslashreplace")


def parsed(line: bytes) -> Row:
    """Reads a line.

    Args:
        line (bytes): A row in JSON.

    Raises:
        TypeError: If it has other fields, or they are of other types, than a row.
        ValueError: If it is no JSON, or holds a number that is not finite or too large.
    """
    row = Row(**json.loads(line))
    for name, kinds in _FIELDS.items():
        if not isinstance(getattr(row, name), kinds):
            raise TypeError(f"{name} is {getattr(row, name)!r}")
    if not all(isinstance(text, str) for text in row.warnings):
        raise TypeError(f"warnings are {row.warnings!r}")
    numbers = [*row.scores.values(), row.seconds, row.cover or 0]
    numbers += [value for curve in row.curves.values() for value in curve]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("not all of its numbers are finite")
    if max(abs(row.queries), abs(row.target or 0)) >= _TOO_LARGE:
        raise ValueError("a number of it is too large")
    if len({len(curve) for curve in row.curves.values()}) > 1:
        raise ValueError("its curves have different lengths")
    return row


#: Whole numbers have 64 bits.
_TOO_LARGE = 2**63
#: What the fields of a row are.
_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("sample", "method", "measure", "label"), str),
    **dict.fromkeys(("scores", "curves"), dict),
    **dict.fromkeys(("error", "digest"), (str, type(None))),
    "seconds": (int, float),
    "queries": int,
    "target": (int, type(None)),
    "cover": (int, float, type(None)),
    "difficult": bool,
    "warnings": (list, tuple),
}


def length_of_whole_lines(path: Path) -> int:
    """The bytes of a file up to the end of its last whole line."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(end - _BLOCK, 0)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


_BLOCK = 2**16
