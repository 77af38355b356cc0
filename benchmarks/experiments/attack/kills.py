"""Runs that are killed at any step, and go on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ...run.folder import RunFolder
from ...run.loop import run
from ...run.rows import RowWriter
from .attacks import Attack, Outcome
from .runs import results_of, silent
from .toys import good_loaders, settings, toys

__all__ = ["ATTACKS"]

_N_SAMPLES = 3
#: What a process does to files, as Python audits it.
_EVENTS = frozenset({"open", "os.mkdir", "os.remove", "os.rename", "os.truncate"})


def _victim(out: str, at: int, said: Connection) -> None:
    """Runs, and is killed before its step number `at`, or in the middle of it if that is a row.

    Says the line of each row that is written, and at the end how many steps there were.
    """
    torch.set_num_threads(1)
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += 1
        return steps == at

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and str(arguments[0]).startswith(out) and step():
            die()

    write: Callable[..., None] = RowWriter.write

    def write_or_die(self: RowWriter, row: Any) -> None:
        if step():
            assert self._file is not None
            line = row.to_json().encode()
            self._file.write(line[: at % len(line)])  # so much of it
            die()
        write(self, row)
        said.send(row.to_json())

    RowWriter.write = write_or_die  # type: ignore[method-assign]
    sys.addaudithook(audit)
    with silent(), toys(good_loaders(_N_SAMPLES)):
        run(settings(Path(out)))
    said.send(steps)


def _killed(out: Path, at: int) -> tuple[list[dict[str, Any]], int]:
    """Runs a victim: the rows that it says it has written, and its steps, 0 if it was killed."""
    # Forks of a fresh process: no threads of this one, and nothing to import each time.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    listen, say = context.Pipe(duplex=False)
    process = context.Process(target=_victim, args=(str(out), at, say))
    process.start()
    say.close()
    rows: list[dict[str, Any]] = []
    steps = 0
    with listen:
        try:
            while True:
                message = listen.recv()
                if isinstance(message, int):
                    steps = message
                else:
                    rows.append(json.loads(message))
        except EOFError:
            pass
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"A run ended with {process.exitcode} that was to be killed.")
    return rows, steps


def _kills(folder: Path, small: bool) -> Outcome:
    """Kills runs at each of their steps, some several times, and lets them go on to the end."""
    _, n_steps = _killed(folder / "whole", 0)
    whole = results_of(folder / "whole")
    lost: list[str] = []
    doubled: list[str] = []
    changed: list[str] = []
    stride = max(n_steps // 8, 1) if small else 1
    tried = 0
    for at in range(1, n_steps + 1, stride):
        out = folder / str(at)
        written: dict[tuple[str, ...], dict[str, Any]] = {}
        # The second time a little later; what is left to do has fewer steps than it had.
        for point in (at,) if at % 3 else (at, max(at // 2, 1)):
            rows, steps = _killed(out, point)
            written |= {_key(row): row for row in rows}
            tried += not steps
        with silent(), toys(good_loaders(_N_SAMPLES)):
            run(settings(out))
        kept = [json.loads(row.to_json()) for row in RunFolder(out).rows()]
        end = {_key(row): row for row in kept}
        counts = Counter(map(_key, kept))
        where = f"killed at step {at}"
        lost += [f"{where}: {key}" for key, row in written.items() if end.get(key) != row]
        lost += [f"{where}: {key}" for key in whole.keys() - results_of(out).keys()]
        doubled += [f"{where}: {key}" for key, count in counts.items() if count > 1]
        changed += [
            f"{where}: {key}" for key, row in results_of(out).items() if row != whole.get(key)
        ]
        if list(out.glob("results-*.jsonl")) or list(out.glob("*.part")):
            changed.append(f"{where}: files left over")
        if RunFolder(out).gallery.samples(["centre", "grad_cam"])[1]:
            changed.append(f"{where}: a picture is damaged")
    faults = {"rows lost": len(lost), "rows doubled": len(doubled), "rows changed": len(changed)}
    return Outcome(tried, faults, (*lost, *doubled, *changed))


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["sample"], row["method"], row["measure"]


ATTACKS: tuple[Attack, ...] = (Attack("kills and resumes", "runs", _kills),)
