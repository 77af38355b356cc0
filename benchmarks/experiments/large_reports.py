"""``python -m benchmarks memory reports``: time and memory of reports of large runs.

The runs are made, without a network: see :func:`~.made_run.make_run`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import typer

from ..run.folder import RunFolder
from .made_run import make_run

__all__ = ["Used", "run_reports", "used"]

_PROGRAM = str(__package__).rpartition(".")[0]
_N_METHODS = 18
#: Samples of a small run, and methods.
_FEW, _FEW_METHODS = 1000, (6, 18)


class Used(NamedTuple):
    """What a process used.

    Attributes:
        seconds (float): From its start to its end.
        cpu_seconds (float): Of all of its threads.
        megabytes (float): The peak of its memory (resident set).
    """

    seconds: float
    cpu_seconds: float
    megabytes: float


def used(arguments: Sequence[str]) -> Used:
    """Runs Python in a process of its own.

    Args:
        arguments (sequence of str): Behind the interpreter's name.

    Raises:
        RuntimeError: If it fails.
    """
    # Between this process and the measured one, since a process inherits the peak of its parent.
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _WATCHED, *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}.")
    seconds, cpu_seconds, peak = json.loads(done.stdout)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Used(seconds, cpu_seconds, peak / unit)


#: Runs Python and says what it used.
_WATCHED = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
cpu_seconds = usage.ru_utime + usage.ru_stime
print(json.dumps([time.perf_counter() - start, cpu_seconds, usage.ru_maxrss]))
process.returncode = os.waitstatus_to_exitcode(status)
sys.exit(process.returncode)
"""


def run_reports(n_samples: int) -> None:
    """Measures reports of small runs and of a large one, and prints a line for each.

    Args:
        n_samples (int): Samples of the large one, which takes about 70 kB of disk for each.
    """
    typer.echo(f"{'':62}{'seconds':>8}{'of CPU':>8}{'peak, MB':>10}")
    for name, found in _cases(n_samples):
        typer.echo(f"{name:62}{found.seconds:8.1f}{found.cpu_seconds:8.1f}{found.megabytes:10.0f}")


def _cases(n_samples: int) -> Iterator[tuple[str, Used]]:
    yield "importing torch and matplotlib", used(["-c", "import torch, matplotlib.pyplot"])
    yield "importing what a report needs", used(["-c", f"import {_PROGRAM}.report"])
    with tempfile.TemporaryDirectory() as work:
        for n_methods in _FEW_METHODS:
            few = make_run(Path(work) / f"few-{n_methods}", _FEW, n_methods).path
            yield _name("report", _FEW, n_methods, "from lines"), _report(few)
        many = make_run(Path(work) / "many", n_samples, _N_METHODS).path
        size = _gigabytes(many / "results-0.jsonl")
        yield _name("report", n_samples, _N_METHODS, f"from {size} of lines"), _report(many)
        finished = used(["-m", __name__, str(many)])
        yield _name("putting together", n_samples, _N_METHODS), finished
        size = _gigabytes(many / "results.parquet")
        yield _name("report", n_samples, _N_METHODS, f"from {size} of Parquet"), _report(many)
        plain = make_run(Path(work) / "plain", n_samples, _N_METHODS, curves=False).path
        yield _name("report", n_samples, _N_METHODS, "from lines, no curves"), _report(plain)


def _name(what: str, n_samples: int, n_methods: int, how: str = "") -> str:
    return f"{what}, {n_samples:,} x {n_methods} x 4 {how}".rstrip()


def _gigabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e9:.2f} GB"


def _report(run: Path) -> Used:
    return used(["-m", _PROGRAM, "report", str(run), "--out", str(run / "report")])


if __name__ == "__main__":
    RunFolder(sys.argv[1]).finish([])
