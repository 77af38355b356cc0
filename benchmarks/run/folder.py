"""The folder of a run: its configuration, its rows, and pictures of its first samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from benchmarks.run.rows import Key, Row, RowWriter, read_rows, write_atomically, write_rows

__all__ = ["ConfigurationError", "RunFolder", "done", "fingerprint", "versions"]

_CONFIGURATION = "configuration.json"
_RESULTS = "results.jsonl"
_GALLERY = "gallery"
#: What may differ from one start of a run to the next, and grow.
_GROWING = ("methods", "measures", "studies")
#: What only says in words what an entry is.
_WORDS = ("description", "source")


class ConfigurationError(Exception):
    """A folder holds the rows of another configuration; the message says what differs."""


class RunFolder:
    """Where a run keeps what it has made, so that it can go on after it was stopped.

    ::

        configuration.json   what was run: network, data, seed, methods, measures, environment
        results-0.jsonl      rows of process 0 as they are made, and so on
        results.jsonl        all rows, when the run is complete
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
            ConfigurationError: If there is none.
        """
        path = self.path / _CONFIGURATION
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{path} is not the configuration of a run: {error}"
            ) from error

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
        if (self.path / _CONFIGURATION).exists():
            before = self.configuration
            _reject_differences(self.path, before, wanted)
            changed = [
                f"{name} {old} -> {wanted['environment'].get(name)}"
                for name, old in before["environment"].items()
                if wanted["environment"].get(name) != old
            ]
            for group in _GROWING:
                wanted[group] = before[group] | wanted[group]
        elif self._row_files():
            raise ConfigurationError(f"{self.path} has rows but no {_CONFIGURATION}.")
        text = json.dumps(wanted, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.path / _CONFIGURATION, text.encode())
        return changed

    # --- rows

    def rows(self) -> list[Row]:
        """All rows so far; of a sample that could be loaded in the end, not the failures before."""
        rows = read_rows(self._row_files())
        loaded = {row.sample for row in rows if row.method}
        return [row for row in rows if row.method or row.sample not in loaded]

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
                measures.index(row.measure) if row.measure in measures else -1,
            )

        rows = sorted(self.rows(), key=place)
        write_rows(self.path / _RESULTS, rows)
        for part in self.path.glob("results-*.jsonl"):
            part.unlink()
        return rows

    def _row_files(self) -> list[Path]:
        whole = [self.path / name for name in (_RESULTS, f"{_RESULTS}.xz")]
        return [path for path in whole if path.exists()] + sorted(self.path.glob("results-*.jsonl"))

    # --- gallery

    def show(self, place: int, image: Image.Image, about: Mapping[str, Any]) -> None:
        """Keeps the picture of a sample and what is to be said about it.

        Args:
            place (int): Its place among the samples.
            image (PIL.Image.Image): What the network sees.
            about (mapping): As JSON: ``sample``, ``title``, ``boxes`` in shares of the image.
        """
        folder = self._shown(place)
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / "image.png")
        write_atomically(folder / "sample.json", json.dumps(about, ensure_ascii=False).encode())

    def show_map(self, place: int, method: str, attribution: Tensor) -> None:
        """Keeps the map (1 x H x W) of a sample that is shown."""
        # Names with options are no file names everywhere.
        name = hashlib.sha256(method.encode()).hexdigest()[:16]
        np.savez_compressed(
            self._shown(place) / f"{name}.npz",
            method=np.array(method),
            map=attribution.squeeze(0).float().cpu().numpy(),
        )

    def gallery(self) -> list[tuple[Image.Image, dict[str, Any], dict[str, np.ndarray]]]:
        """The samples that are shown: image, what is said about it, and maps (H x W) by method."""
        shown = []
        for folder in sorted((self.path / _GALLERY).glob("*/")):
            about = json.loads((folder / "sample.json").read_text(encoding="utf-8"))
            with Image.open(folder / "image.png") as image:
                picture = image.convert("RGB")
            maps = {}
            for file in folder.glob("*.npz"):
                with np.load(file) as entry:
                    maps[str(entry["method"])] = entry["map"]
            order = [method for method in self.configuration["methods"] if method in maps]
            shown.append((picture, about, {method: maps[method] for method in order}))
        return shown

    @property
    def pictures(self) -> Path:
        """Where further pictures go, which the report shows by their names."""
        return self.path / "pictures"

    def _shown(self, place: int) -> Path:
        return self.path / _GALLERY / f"{place:05}"


def done(rows: Iterable[Row], *, retry: bool = False) -> set[Key]:
    """What rows say is done: failures, too, unless they are tried again."""
    return {row.key for row in rows if not (retry and row.error)}


def fingerprint(network: nn.Module) -> str:
    """Tells networks apart by their weights: a short hash of them."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        if isinstance(tensor, Tensor):
            digest.update(tensor.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes())
    return digest.hexdigest()[:16]


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of installed packages."""
    return {package: version(package) for package in packages}


def _reject_differences(path: Path, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = [
        f"{name}: {before.get(name)!r}, now {wanted.get(name)!r}"
        for name in sorted({*before, *wanted} - {"environment", *_GROWING})
        if before.get(name) != wanted.get(name)
    ]
    differing += [
        f"{name}: {before[group][name]!r}, now {wanted[group][name]!r}"
        for group in _GROWING
        for name in before[group]
        if name in wanted[group]
        and _without_words(before[group][name]) != _without_words(wanted[group][name])
    ]
    if differing:
        raise ConfigurationError(
            f"{path} holds the rows of another configuration ({'; '.join(differing)}). Give "
            "another folder, or the former options to go on."
        )


def _without_words(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    return {key: value for key, value in entry.items() if key not in _WORDS}
