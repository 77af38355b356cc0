"""``python -m benchmarks memory reports``: time and memory of reports of large runs.

The runs are made, without a network: see :func:`~.made_run.make_run`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from ..run.folder import RunFolder
from .made_run import make_run

__all__ = ["Used", "run_reports", "used"]

_PROGRAM = str(__package__).rpartition(".")[0]
_N_METHODS = 18
_FEW = 1000


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
    """Measures reports of a small and a large run, and prints a table.

    Args:
        n_samples (int): Samples of the large one, which takes about 70 kB of disk for each.
    """
    table = Table(title=f"Reports, {_N_METHODS} methods x 4 measures", title_justify="left")
    for heading in ("", "seconds", "seconds of CPU", "peak of memory (MB)"):
        table.add_column(heading, justify="right" if heading else "left")

    def add(name: str, found: Used) -> None:
        table.add_row(
            name, f"{found.seconds:.1f}", f"{found.cpu_seconds:.1f}", f"{found.megabytes:.0f}"
        )

    with tempfile.TemporaryDirectory() as work:
        few, many, plain = (Path(work) / name for name in ("few", "many", "plain"))
        make_run(few, _FEW, _N_METHODS)
        make_run(plain, n_samples, _N_METHODS, curves=False)
        make_run(many, n_samples, _N_METHODS)
        add("importing torch and matplotlib", used(["-c", "import torch, matplotlib.pyplot"]))
        add("importing what a report needs", used(["-c", f"import {_PROGRAM}.report"]))
        add(f"{_FEW:,} samples, from lines", _report(few))
        add(f"{n_samples:,} samples without curves, from lines", _report(plain))
        add(f"{n_samples:,} samples, from lines", _report(many))
        add(f"{n_samples:,} samples, put together", used(["-m", __name__, str(many)]))
        add(f"{n_samples:,} samples, from what was put together", _report(many))
    Console().print(table)


def _report(run: Path) -> Used:
    return used(["-m", _PROGRAM, "report", str(run), "--out", str(run / "report")])


if __name__ == "__main__":
    RunFolder(sys.argv[1]).finish([])
