"""Attacks on what a run has written: damaged pictures, configurations, rows, checkpoints; names."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from typer.testing import CliRunner

from ...run.folder import RunFolder
from ...run.loop import run
from .attacks import Attack, Outcome, added
from .runs import silent
from .toys import good_loaders, good_sample, settings, toys

__all__ = ["ATTACKS"]

#: What a value in JSON is replaced by.
_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    1e300,
    "",
    "x" * 5000,
    "<b>[/red]\x1b[31m",
    [],
    [[]],
    {},
)
#: What a file is replaced by.
_CONTENTS: tuple[bytes, ...] = (
    b"",
    b"\0" * 100,
    b"\xff\xfe\xfd",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b"[" * 100_000,
    b'{"a": NaN}',
)
_NAMES: tuple[str, ...] = (
    "n" * 300,
    "\N{GREEK SMALL LETTER LAMDA}" * 300,
    "n" * 100_000,
    "../../../etc/passwd",
    "/",
    "..",
    " ",
    "a\nb\rc\td",
    "nul \0",
    "red \x1b[31m, title \x1b]0;owned\a",
    "[bold]markup[/red]",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "a,b:c=d",
    '"quoted" and `so` | on',
    "not Unicode \udcff",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj",
    "con",
    "-rf",
)


#: Of the samples' run, as a command.
_COMMAND = (
    "compare",
    "--model=attacked",
    "--dataset=attacked",
    "--methods=centre grad_cam",
    "--measures=quantus.Sparseness",  # whose report is quick: it has no figures
    "--accelerator=cpu",
    "--n-shown=2",
)


def _ends_well(*arguments: str) -> str | None:
    """What is wrong with the end of a command: None if it is success, or an error in a line."""
    code, said = _end(*arguments)
    if code == 0:
        return None
    return said if code not in (1, 2) else (None if said.strip() else "it ended without a word")


def _end(*arguments: str) -> tuple[int, str]:
    """The exit status of a command and what it said; -1 and the exception if it raised one."""
    from ...commands import app  # which knows the attacks

    done = CliRunner().invoke(app, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return -1, f"{type(done.exception).__name__}: {done.exception}"
    return done.exit_code, done.output


def _finished(folder: Path) -> Path:
    """The folder of a run with two samples, both of them with pictures, and a figure."""
    with silent(), toys(good_loaders(2)):
        run(settings(folder, n_shown=2, measures=["quantus.Sparseness"]))
    RunFolder(folder).gallery.keep_figure("a figure", Figure(figsize=(1, 1)))
    return folder


def _some(variants: Sequence[Any], count: int) -> list[Any]:
    """So many of them, drawn at random, but always the same."""
    if len(variants) <= count:
        return list(variants)
    chosen = np.random.default_rng(0).choice(len(variants), count, replace=False)
    return [variants[index] for index in sorted(chosen)]


def _damaged(content: bytes) -> Iterator[tuple[str, bytes]]:
    """A file's content, replaced, cut or with noise in it."""
    yield from ((f"replaced by {other[:20]!r}", other) for other in _CONTENTS)
    rng = np.random.default_rng(0)
    for _ in range(6):
        length = int(rng.integers(len(content)))
        yield f"cut to {length} bytes", content[:length]
        noise = rng.bytes(min(16, len(content) - length))
        yield f"with noise at {length}", content[:length] + noise + content[length + len(noise) :]


def _replaced(value: Any) -> Iterator[tuple[str, Any]]:
    """JSON with one thing in it replaced or left out, each in turn."""
    for path in _paths(value):
        for other in (*_VALUES, ...):
            copied = copy.deepcopy(value)
            inner = copied
            for key in path[:-1]:
                inner = inner[key]
            if other is ...:
                del inner[path[-1]]
            else:
                inner[path[-1]] = other
            yield f"{path}: {str(other)[:20]!r}", copied


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*before, key)
        if isinstance(inner, (dict, list)):
            yield from _paths(inner, (*before, key))


def _try_contents(
    folder: Path,
    file: Path,
    variants: Sequence[tuple[str, bytes]],
    problem: Callable[[], str | None],
) -> Outcome:
    """Puts each of some contents into a file of a run, and sees how commands end."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    wrong = []
    for name, content in variants:
        file.write_bytes(content)
        said = problem()
        if said is not None:
            wrong.append(f"{file.name} {name}: {said}")
        for path in [*folder.rglob("*")]:
            if path.is_file() and path not in before:
                path.unlink()
        for path, original in before.items():
            path.write_bytes(original)
    return Outcome(len(variants), {"tracebacks": len(wrong)}, wrong)


def _galleries(folder: Path, small: bool) -> Outcome:
    """Pictures are damaged, missing or strange: the report comes about, and says so."""
    run_folder = _finished(folder / "run")
    gallery = run_folder / "gallery"

    def problem() -> str | None:
        code, said = _end("report", str(run_folder), f"--out={folder / 'report'}")
        return None if code == 0 else said

    def noted() -> str | None:
        page = folder / "report" / "index.html"
        return problem() or (
            None if "cannot be read" in page.read_text() else "the page says nothing"
        )

    outcomes = []
    files = [*sorted((gallery / "00000").iterdir()), run_folder / "pictures" / "a figure.png"]
    for file in files:
        variants = list(_damaged(file.read_bytes()))
        certain = variants[: len(_CONTENTS)]
        outcomes.append(_try_contents(run_folder, file, _some(certain, 1 if small else 6), noted))
        less = _some(variants[len(_CONTENTS) :], 1 if small else 8)
        outcomes.append(_try_contents(run_folder, file, less, problem))
    about = gallery / "00000" / "sample.json"
    spoilt = [
        (name, json.dumps(value).encode())
        for name, value in _replaced(json.loads(about.read_text()))
    ]
    outcomes.append(_try_contents(run_folder, about, _some(spoilt, 4 if small else 40), problem))

    (gallery / "a stray folder" / "with another").mkdir(parents=True)
    (gallery / "a stray file").write_text("stray")
    (gallery / "00001" / "0.npz").mkdir()
    (gallery / "00001" / "image.png").unlink()
    said = noted()
    outcomes.append(Outcome(4, {"tracebacks": int(said is not None)}, (said,) if said else ()))
    return added(outcomes)


def _configurations(folder: Path, small: bool) -> Outcome:
    """The configuration is damaged or edited: the report and the next run say so in a line."""
    run_folder = _finished(folder / "run")
    file = run_folder / "configuration.json"
    edited = [
        (name, json.dumps(value).encode())
        for name, value in _replaced(json.loads(file.read_text()))
    ]
    variants = list(_damaged(file.read_bytes()))
    chosen = [*_some(variants, 6 if small else 21), *_some(edited, 8 if small else 80)]
    return _try_contents(run_folder, file, chosen, partial(_report_and_go_on, run_folder))


def _rows(folder: Path, small: bool) -> Outcome:
    """Rows are damaged or edited: the report and the next run say so in a line."""
    run_folder = _finished(folder / "run")
    whole = run_folder / "results.parquet"
    chosen = _some(list(_damaged(whole.read_bytes())), 6 if small else 21)
    problem = partial(_report_and_go_on, run_folder)
    outcome = _try_contents(run_folder, whole, chosen, problem)
    # The same as lines.
    lines = [row.to_json() for row in RunFolder(run_folder).rows()]
    whole.unlink()
    file = run_folder / "results-0.jsonl"
    file.write_text("\n".join([*lines, ""]), encoding="utf-8")
    edited = [
        (name, "\n".join([json.dumps(value), *lines[1:], ""]).encode())
        for name, value in _replaced(json.loads(lines[0]))
    ]
    variants = list(_damaged(file.read_bytes()))
    chosen = [*_some(variants, 6 if small else 21), *_some(edited, 8 if small else 60)]
    return added([outcome, _try_contents(run_folder, file, chosen, problem)])


def _report_and_go_on(run_folder: Path) -> str | None:
    said = _ends_well("report", str(run_folder), f"--out={run_folder.parent / 'report'}")
    if said is None:
        with toys(good_loaders(2)):
            said = _ends_well(*_COMMAND, f"--out={run_folder}")
    return said


def _names(folder: Path, small: bool) -> Outcome:
    """Samples and classes have strange names: they are measured and reported like any other."""
    wrong = []
    names = [name for name in _NAMES if not small or len(name) < 1000]
    loaders = {name: partial(good_sample, index, name) for index, name in enumerate(names)}
    loaders[""] = partial(good_sample, 0, "")
    with toys(loaders):
        code, said = _end(*_COMMAND, f"--out={folder / 'run'}")
    if code != 0:
        wrong.append(said)
    elif "\x1b" in said:
        wrong.append("a name is printed as a command for the terminal")
    else:
        rows = RunFolder(folder / "run").rows()
        wrong += [f"{row.sample[:50]}: {row.error}" for row in rows if row.error]
        if len(rows) != len(loaders) * 4:
            wrong.append(f"{len(rows)} rows for {len(loaders)} samples")
    paths = [f"--{name}={'p' * 300}" for name in ("out", "root", "weights", "model", "layer")]
    for option in (*paths, f"--methods=random:{'s' * 300}=1", "--methods=" + "m" * 300):
        with toys(good_loaders(1)):
            said_of_it = _ends_well(*_COMMAND, f"--out={folder / 'other'}", option)
        if said_of_it is not None:
            wrong.append(f"{option[:40]}: {said_of_it}")
    return Outcome(len(loaders) + 7, {"tracebacks": len(wrong)}, wrong)


def _checkpoints(folder: Path, small: bool) -> Outcome:
    """The checkpoint of a fine-tuning is damaged: one line says so."""
    data, out = folder / "data", folder / "run"
    for index in range(8):
        place = data / ("train" if index < 4 else "val") / f"class {index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        good_sample(index).image.save(place / f"{index}.png")
    command = (
        "finetune", f"--data={data}", f"--out={out}", "--model=attacked", "--arms=plain",
        "--seeds=1", "--epochs=2", "--batch-size=2", "--n-maps=0",
        "--accelerator=cpu",
    )  # fmt: skip
    with toys({}):
        code, said = _end(*command)
        if code != 0:
            return Outcome(1, {"tracebacks": 1}, (said,))
        of_arm = out / "runs" / "plain-0"
        # As if it had been stopped after the first epoch.
        checkpoint = (of_arm / "epoch-2.pt").rename(of_arm / "epoch-1.pt")
        outcomes = []
        for file in (checkpoint, of_arm / "epochs.csv", out / "configuration.json"):
            variants = _some(list(_damaged(file.read_bytes())), 3 if small else 21)
            outcomes.append(_try_contents(out, file, variants, partial(_goes_on, of_arm, command)))
    return added(outcomes)


def _goes_on(of_arm: Path, command: tuple[str, ...]) -> str | None:
    said = _ends_well(*command)
    for later in of_arm.glob("epoch-2.pt*"):
        later.unlink()
    return said


ATTACKS: tuple[Attack, ...] = (
    Attack("damaged galleries", "folders", _galleries),
    Attack("damaged configurations", "folders", _configurations),
    Attack("damaged rows", "folders", _rows),
    Attack("strange names", "folders", _names),
    Attack("damaged checkpoints", "folders", _checkpoints),
)
