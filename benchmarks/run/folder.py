"""The folder of a run: its configuration, its rows, and pictures of its first samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .configuration import (
    GROWING,
    ConfigurationError,
    read_configuration,
    reject_differences,
)
from .gallery import Gallery
from .rows import (
    COST,
    Key,
    Row,
    RowError,
    RowWriter,
    read_rows,
    write_atomically,
    write_rows,
)

__all__ = ["RunFolder", "done"]

_CONFIGURATION = "configuration.json"
_RESULTS = "results.jsonl"


class RunFolder:
    """Where a run keeps what it has made, so that it can go on after it was stopped.

    ::

        configuration.json   what was run: network, data, seed, methods, measures, environment
        results-0.jsonl      rows of process 0 as they are made, and so on
        results.jsonl        all rows, when the run is complete
        run.lock, run.json   held by the run that is at work, and which one that is
        gallery/             for its first samples: image, boxes and maps
        pictures/            figures beside them

    Args:
        path (str or Path): The folder; it is made when something is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    # --- configuration

    @property
    def configuration(self) -> dict[str, Any]:
        """What was run.

        Raises:
            ConfigurationError: If there is none, or it is not one.
        """
        return read_configuration(self.path / _CONFIGURATION)

    def configure(self, configuration: Mapping[str, Any]) -> list[str]:
        """Begins a run, or goes on with one of the same configuration.

        Entries of ``methods``, ``measures`` and ``studies`` may be added; ``environment`` is
        compared, too, but only reported.

        Args:
            configuration (mapping): What is run, as JSON.

        Returns:
            list of str: What is not as than before.

        Raises:
            ConfigurationError: If the folder holds the rows of another configuration.
        """
        wanted: dict[str, Any] = json.loads(json.dumps(configuration))
        changed: list[str] = []
        before = self.compare(wanted)
        if before is not None:
            changed = [
                f"{name} {old} -> {wanted['environment'].get(name)}"
                for name, old in before["environment"].items()
                if wanted["environment"].get(name) != old
            ]
            for group in GROWING:
                wanted[group] = before[group] | wanted[group]
        text = json.dumps(wanted, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.path / _CONFIGURATION, text.encode(errors="backslashreplace"))
        return changed

    def compare(self, configuration: Mapping[str, Any]) -> dict[str, Any] | None:
        """Checks that a run of a configuration can begin or go on; changes nothing.

        Args:
            configuration (mapping): What is run, as JSON.

        Returns:
            dict or None: The configuration that there is; None if the folder is new.

        Raises:
            ConfigurationError: As from :meth:`configure`.
        """
        if (self.path / _CONFIGURATION).exists():
            before = self.configuration
            reject_differences(self.path, before, json.loads(json.dumps(configuration)))
            return before
        if self._row_files():
            raise ConfigurationError(f"{self.path} has rows but no {_CONFIGURATION}.")
        return None

    # --- rows

    def rows(self) -> list[Row]:
        """All rows so far; of a sample that could be used in the end, not the failures before.

        Raises:
            ConfigurationError: If there are rows, but no configuration.
            RowError: If rows cannot be read, or are of what the configuration does not have.
        """
        files = self._row_files()
        try:
            return self._rows_of(files)
        except RowError:
            if all(map(Path.exists, files)):
                raise
            return self.rows()  # a run that is at work has put its files together meanwhile

    def _rows_of(self, files: Sequence[Path]) -> list[Row]:
        rows = read_rows(files)
        known = self.configuration if rows else {}
        for row in rows:
            for kind, name in (("methods", row.method), ("measures", row.measure)):
                if name and name not in known[kind]:
                    raise RowError(
                        f"{self.path} has rows of {name!r}, which is not among the {kind} of its "
                        f"{_CONFIGURATION}: has one of the two been edited?"
                    )
        used = {row.sample for row in rows if row.method}
        return [row for row in rows if row.method or row.sample not in used]

    def writer(self, rank: int) -> RowWriter:
        """What process number `rank` appends its rows with."""
        return RowWriter(self.path / f"results-{rank}.jsonl")

    def finish(self, order: Mapping[str, int]) -> list[Row]:
        """Puts the rows of all processes into one file.

        Args:
            order (mapping of str to int): Places of the samples. Rows of others go to the end.

        Returns:
            list of Row: The rows, by sample, then by method and measure.
        """
        configuration = self.configuration
        methods, measures = list(configuration["methods"]), list(configuration["measures"])

        def place(row: Row) -> tuple[int, str, int, int]:
            return (
                order.get(row.sample, len(order)),
                row.sample,
                methods.index(row.method) if row.method else -1,
                measures.index(row.measure) if row.measure else -1,
            )

        files = self._row_files()
        rows = sorted(self._rows_of(files), key=place)
        write_rows(self.path / _RESULTS, rows)
        # Those that were read, and no others.
        for part in set(files) - {self.path / _RESULTS, self.path / f"{_RESULTS}.xz"}:
            part.unlink()
        return rows

    def _row_files(self) -> list[Path]:
        whole = [self.path / name for name in (_RESULTS, f"{_RESULTS}.xz")]
        return [path for path in whole if path.exists()] + sorted(self.path.glob("results-*.jsonl"))

    @property
    def gallery(self) -> Gallery:
        """Its pictures."""
        return Gallery(self.path)


def done(rows: Iterable[Row], *, retry: bool = False) -> set[Key]:
    """What rows say is done: failures, too, unless they are tried again.

    Where a sample or its map by a method failed, there is nothing more to do for it, which an empty
    name in the key says: of the method and the measure, or of the measure.
    """
    counted = [row for row in rows if not (retry and row.error)]
    without_map = {
        (row.sample, row.method, "") for row in counted if row.error and row.measure == COST
    }
    return {row.key for row in counted} | without_map
