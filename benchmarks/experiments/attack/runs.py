"""Attacks on runs: bad samples, methods, measures and networks, a second run, other data."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor
from torch.nn import Module

from captum_groupcam.methods import Method, MethodSpec

from ...data import Sample
from ...measures.registry import Measure
from ...report import write_report
from ...run.configuration import ConfigurationError
from ...run.folder import RunFolder
from ...run.loop import run
from ...run.rows import Row, RowError
from ...run.table import RowTable
from . import kinds
from .attacks import Attack, Outcome, added
from .toys import good_loaders, good_sample, settings, toys

__all__ = ["ATTACKS", "results_of", "silent"]

_THEME = "runs"


@contextmanager
def silent() -> Iterator[None]:
    """What is printed meanwhile is not shown."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def results_of(folder: Path) -> dict[str, Any]:
    """The rows of a finished run, by sample, method and measure, with seconds set to 0."""
    found: dict[str, Any] = {}
    for kept in RunFolder(folder).rows():
        row = json.loads(kept.to_json())
        row["seconds"] = 0
        for name in ("seconds", "forward_passes"):
            if name in row.get("scores", {}):
                row["scores"][name] = 0
        found[f"{row['sample']}|{row['method']}|{row['measure']}"] = row
    return found


# --- bad things, of which each must be a row


def _bad_samples(spoils: Mapping[str, kinds.Spoil], folder: Path, may_work: bool) -> Outcome:
    """Samples of which each is bad in its way, between two good ones."""

    def load(name: str, spoil: kinds.Spoil) -> Any:
        return spoil(good_sample(1, name))

    loaders: dict[str, Callable[[], Any]] = {
        "good 0": partial(good_sample, 0),
        **{name: partial(load, name, spoil) for name, spoil in spoils.items()},
        "good 2": partial(good_sample, 2),
    }

    def problem(rows: list[Row], name: str) -> str | None:
        own = [row for row in rows if row.sample == name]
        if not own:
            return "left out without a row"
        return None if may_work or any(row.error for row in own) else "accepted"

    return _outcome(
        spoils,
        folder,
        partial(toys, loaders),
        {},
        problem,
        good=lambda row: row.sample.startswith("good"),
        n_good=2 * 2 * 3,
    )


def _bad_methods(maps: Mapping[str, Callable[..., Any]], folder: Path, may_work: bool) -> Outcome:
    """Methods of which each is bad in its way, between two good ones."""

    def method(name: str, explain: Callable[..., Any]) -> Method:
        def attribute(_model: Module, inputs: Tensor, target: Any) -> Any:
            return explain(inputs, target)

        return Method(name, name, attribute)

    methods = {name: method(name, explain) for name, explain in maps.items()}

    def problem(rows: list[Row], name: str) -> str | None:
        own = [row for row in rows if row.method == name]
        if may_work:
            wrong = [row.error for row in own if row.error]
            return f"refused: {wrong[0]}" if wrong else None
        return None if [row for row in own if row.error] == own else "accepted"

    good = ["centre", "grad_cam"]
    return _outcome(
        maps,
        folder,
        partial(toys, good_loaders(2), methods=methods),
        {"methods": [good[0], *maps, good[1]]},
        problem,
        good=lambda row: row.method in good,
        n_good=2 * 2 * 3,
    )


def _bad_measures(scores: Mapping[str, Callable[..., Any]], folder: Path) -> Outcome:
    """Measures of which each is bad in its way, beside a good one."""
    measures = {
        name: Measure(name, "faithfulness", {name: True}, compute, "an attack")
        for name, compute in scores.items()
    }

    def problem(rows: list[Row], name: str) -> str | None:
        own = [row for row in rows if row.measure == name]
        return None if own and all(row.error for row in own) else "accepted"

    return _outcome(
        scores,
        folder,
        partial(toys, good_loaders(2), measures=measures),
        {"measures": ["PointingGame", *scores, "AverageDrop"]},
        problem,
        good=lambda row: row.measure not in scores,
        n_good=2 * 2 * 3,
    )


def _bad_passes(passes: Mapping[str, Callable[..., Any]], folder: Path) -> Outcome:
    """Samples with which the network fails, each in its way, between two good ones."""
    traps = dict(enumerate(passes.values(), 1))

    def load(name: str, index: int) -> Sample:
        sample = good_sample(1, name)
        return replace(sample, image=Image.new("RGB", sample.image.size, (255, 20 * index, 0)))

    def trap(inputs: Tensor, outputs: Tensor) -> Tensor:
        red, green, _ = ((inputs[0].flatten(1).mean(1) + 1) * 255 / 2).round().tolist()
        return traps[int(green) // 20](inputs, outputs) if red == 255 else outputs

    loaders: dict[str, Callable[[], Any]] = {
        "good 0": partial(good_sample, 0),
        **{name: partial(load, name, index) for index, name in enumerate(passes, 1)},
        "good 2": partial(good_sample, 2),
    }

    def problem(rows: list[Row], name: str) -> str | None:
        own = [row for row in rows if row.sample == name]
        return None if own and all(row.error for row in own) else "accepted"

    return _outcome(
        passes,
        folder,
        partial(toys, loaders, trap=trap),
        {},
        problem,
        good=lambda row: row.sample.startswith("good"),
        n_good=2 * 2 * 3,
    )


def _outcome(
    names: Iterable[str],
    folder: Path,
    world: Callable[[], Any],
    changes: dict[str, Any],
    problem: Callable[[list[Row], str], str | None],
    good: Callable[[Row], bool],
    n_good: int,
) -> Outcome:
    """Runs, goes on, reports, and looks at the rows of each kind and of what is good."""
    names = list(names)
    ended: list[str] = []
    rows: list[Row] = []
    with world(), silent():
        methods = [MethodSpec(name) for name in changes.pop("methods", ("centre", "grad_cam"))]
        chosen = settings(folder, methods=methods, **changes)
        try:
            run(chosen)
            before = (folder / "results.parquet").read_bytes()
            run(chosen)
            if (folder / "results.parquet").read_bytes() != before:
                ended.append("what failed is tried again without being asked for")
            write_report([folder], folder / "report")
            rows = RunFolder(folder).rows()
        except Exception as error:  # it should not have ended
            ended.append(f"{', '.join(names)}: {type(error).__name__}: {error}")
    wrong = [] if ended else [f"{name}: {said}" for name in names if (said := problem(rows, name))]
    fine = [row for row in rows if good(row) and not row.error]
    if not ended and len(fine) != n_good:
        wrong.append(f"{n_good - len(fine)} results missing of what is good")
    faults = {"runs ended": len(ended), "wrong rows": len(wrong)}
    return Outcome(len(names), faults, (*ended, *wrong))


def _each(
    attempt: Callable[..., Outcome],
    things: Mapping[str, Any],
    folder: Path,
    small: bool,
    *more: Any,
) -> Outcome:
    """All of them in one run; unless a small number of runs is enough, also each in its own."""
    together = attempt(things, folder / "all", *more)
    if small:
        return together
    alone = [
        attempt({name: thing}, folder / str(index), *more)
        for index, (name, thing) in enumerate(things.items())
    ]
    return added([replace(together, tried=0), *alone])


def _samples(of: Mapping[str, kinds.Spoil], folder: Path, small: bool) -> Outcome:
    return _each(_bad_samples, of, folder, small, False)


def _odd_samples(folder: Path, small: bool) -> Outcome:
    return _each(_bad_samples, kinds.ODD, folder, small, True)


def _methods(folder: Path, small: bool) -> Outcome:
    bad = _each(_bad_methods, kinds.MAPS, folder / "bad", small, False)
    return added([bad, _bad_methods(kinds.FINE_MAPS, folder / "fine", True)])


def _measures(folder: Path, small: bool) -> Outcome:
    return _each(_bad_measures, kinds.SCORES, folder, small)


def _passes(folder: Path, small: bool) -> Outcome:
    return _each(_bad_passes, kinds.PASSES, folder, small)


# --- two runs, other data


def _second_run(folder: Path, small: bool) -> Outcome:
    """A second run begins while the first one is at work, at each step of its end, too."""
    n_samples = 2 if small else 16
    write, unlink = RowTable.write, Path.unlink
    said: list[str] = []
    touched: list[str] = []

    def another() -> None:
        if len(said) > 10:  # one that is let in begins another
            return
        before = _contents(folder / "run")
        try:
            run(settings(folder / "run"))
        except RowError as error:
            said.append(str(error))
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
        else:
            said.append("it was let in")
        if _contents(folder / "run") != before:
            touched.append("it changed something")

    def load() -> Sample:
        another()
        return good_sample(1, "slow")

    def slow_write(*arguments: Any) -> None:
        another()  # when rows have been read and are not written yet
        write(*arguments)
        another()  # and when they are written and their parts are still there

    def slow_unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("results-"):
            another()
        unlink(path, missing_ok=missing_ok)

    with toys(good_loaders(n_samples)), silent():
        run(settings(folder / "alone"))
    loaders = good_loaders(n_samples) | {"slow": load}
    with (
        toys(loaders),
        silent(),
        patch.object(RowTable, "write", slow_write),
        patch.object(Path, "unlink", slow_unlink),
    ):
        run(settings(folder / "run"))
    expected = results_of(folder / "alone")
    found = results_of(folder / "run")
    lost = [key for key, row in expected.items() if found.get(key) != row]
    wrong = [text for text in said if "Another run is at work" not in text]
    faults = {"rows lost": len(lost), "let in": len(wrong), "files touched": len(touched)}
    return Outcome(len(said), faults, (*lost, *wrong, *touched))


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


_CHANGES: Mapping[str, kinds.Spoil] = {
    "another picture": lambda sample: replace(sample, image=sample.image.rotate(180)),
    "other boxes": lambda sample: replace(sample, boxes=torch.ones(1, 4).cumsum(1)),
    "masks for boxes": lambda sample: replace(
        sample, boxes=None, masks=torch.ones(sample.image_size) > 0
    ),
    "another class": lambda sample: replace(sample, targets=(4,)),
    "another label": lambda sample: replace(sample, label="another"),
    "a difficult one": lambda sample: replace(sample, difficult=True),
}


def _other_data(folder: Path, small: bool) -> Outcome:
    """Samples change under a run that was stopped half-way, or is complete."""
    n_samples = 4 if small else 32
    good = good_loaders(n_samples)
    missed = []
    for place, ((name, change), done) in enumerate(product(_CHANGES.items(), ("half", "all"))):
        out = folder / str(place)

        def load(load: Callable[[], Sample], change: kinds.Spoil) -> Any:
            return change(load())

        with silent():
            with toys(good):
                run(settings(out, limit=n_samples // 2 if done == "half" else None))
            before = _contents(out)
            with toys({key: partial(load, one, change) for key, one in good.items()}):
                try:
                    run(settings(out))
                    missed.append(f"{name}, {done}: not noticed")
                except ConfigurationError as error:
                    if "good 0" not in str(error) or _contents(out) != before:
                        missed.append(f"{name}, {done}: {error}")
    return Outcome(2 * len(_CHANGES), {"not noticed": len(missed)}, missed)


ATTACKS: tuple[Attack, ...] = (
    *(
        Attack(name, _THEME, partial(_samples, of))
        for name, of in {
            "loaders that fail": kinds.LOADERS,
            "bad labels": kinds.LABELS,
            "bad pictures": kinds.IMAGES,
            "bad boxes": kinds.BOXES,
            "bad masks": kinds.MASKS,
        }.items()
    ),
    Attack("odd samples", _THEME, _odd_samples),
    Attack("bad methods", _THEME, _methods),
    Attack("bad measures", _THEME, _measures),
    Attack("bad forward passes", _THEME, _passes),
    Attack("a second run in the folder", _THEME, _second_run),
    Attack("other data under a run", _THEME, _other_data),
)
