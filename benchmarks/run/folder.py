"""The folder of a run: its configuration, its rows, and pictures of its first samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .configuration import (
    GROWING,
    ConfigurationError,
    read_configuration,
    reject_differences,
)
from .gallery import Gallery
from .intake import restored
from .rows import Row, RowError, RowWriter, write_atomically
from .table import RowTable

__all__ = ["RunFolder"]

_CONFIGURATION = "configuration.json"
_RESULTS = "results.parquet"
#: All rows of a run, as they were kept before.
_FORMER_RESULTS = ("results.jsonl", "results.jsonl.xz")


class RunFolder:
    """Where a run keeps what it has made, so that it can go on after it was stopped.

    ::

        configuration.json   what was run: network, data, seed, methods, measures, environment
        results-0.jsonl      rows of process 0 as they are made, and so on
        results.parquet      all rows, when the run is complete
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
        return self.table().rows()

    def table(self) -> RowTable:
        """All rows so far, for a run that is too large for :meth:`rows`.

        Raises:
            ConfigurationError: As from :meth:`rows`.
            RowError: As from :meth:`rows`.
        """
        table = RowTable()
        self.read_into(table)
        return table

    def read_into(self, table: RowTable) -> int:
        """Reads all rows so far into a table.

        Args:
            table (RowTable): The table.

        Returns:
            int: The run's number there.

        Raises:
            ConfigurationError: As from :meth:`rows`.
            RowError: As from :meth:`rows`.
        """
        run, _ = self._read_into(table)
        return run

    def _read_into(self, table: RowTable) -> tuple[int, list[Path]]:
        files = self._row_files()
        try:
            run = table.read(files)
        except RowError:
            if all(map(Path.exists, files)):
                raise
            return self._read_into(table)  # a run at work has put its files together meanwhile
        names = table.query("SELECT DISTINCT method, measure FROM rows WHERE run = $1", [run])
        known = self.configuration if names else {}
        for method, measure in names:
            for kind, name in (("methods", restored(method)), ("measures", restored(measure))):
                if name and name not in known[kind]:
                    raise RowError(
                        f"{self.path} has rows of {name!r}, which is not among the {kind} of its "
                        f"{_CONFIGURATION}: has one of the two been edited?"
                    )
        return run, files

    def writer(self, rank: int) -> RowWriter:
        """What process number `rank` appends its rows with."""
        return RowWriter(self.path / f"results-{rank}.jsonl")

    def finish(self, order: Iterable[str]) -> RowTable:
        """Puts the rows of all processes into one file.

        Args:
            order (iterable of str): The samples in their order. Rows of others go to the end.

        Returns:
            RowTable: The rows, by sample, then by method and measure.
        """
        configuration = self.configuration
        table = RowTable()
        _, files = self._read_into(table)
        whole = self.path / _RESULTS
        if files != [whole]:
            table.order(order, list(configuration["methods"]), list(configuration["measures"]))
            table.write(whole)
        # Those that were read, and no others.
        for part in set(files) - {whole, self.path / _FORMER_RESULTS[1]}:
            part.unlink()
        return table

    def _row_files(self) -> list[Path]:
        whole = [self.path / name for name in (_RESULTS, *_FORMER_RESULTS)]
        return [path for path in whole if path.exists()] + sorted(self.path.glob("results-*.jsonl"))

    @property
    def gallery(self) -> Gallery:
        """Its pictures."""
        return Gallery(self.path)
