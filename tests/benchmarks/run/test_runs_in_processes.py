"""Runs that are killed, shared by two machines, or stopped by a full disk."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.run.folder import RunFolder
from benchmarks.run.loop import RunSettings, run
from benchmarks.run.rows import Row
from captum_groupcam.methods import MethodSpec
from tests.benchmarks.run.small_runs import assert_same

ROOT = Path(__file__).parents[3]


def command(settings: RunSettings, *more: str) -> list[str]:
    return [
        "compare",
        f"--out={settings.out}",
        f"--dataset={settings.dataset}",
        f"--root={settings.root}",
        f"--model={settings.model}",
        f"--weights={settings.weights}",
        f"--methods={' '.join(map(str, settings.methods))}",
        f"--measures={' '.join(settings.measures or ())}",
        f"--n-shown={settings.n_shown}",
        "--accelerator=cpu",
        *more,
    ]


KILLED = """
import os, signal, sys
from benchmarks.__main__ import app
from benchmarks.run.rows import RowWriter

write, left = RowWriter.write, [int(sys.argv[1])]

def write_and_die(self, row):
    if not left[0]:
        self._file.write(row.to_json().encode()[: int(sys.argv[2])])  # half a line
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    write(self, row)

RowWriter.write = write_and_die
app(sys.argv[3:])
"""


def test_a_killed_run_goes_on_as_if_nothing_had_been(
    settings: RunSettings, whole: list[Row]
) -> None:
    """The command itself; that it may be killed at any step is one of the attacks."""
    kept = 0
    for n_rows in (14, 12):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(n_rows), "17", *command(settings)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        kept += n_rows
        rows = RunFolder(settings.out).rows()
        assert len(rows) == kept
        assert_same(rows, whole[:kept])
    before = RunFolder(settings.out).rows()
    folder = run(settings)
    assert folder is not None
    rows = folder.rows()
    assert rows[:kept] == before  # nothing was done twice: even the seconds are the same
    assert_same(rows, whole)


def test_two_machines_give_the_rows_of_one_process(settings: RunSettings, whole: list[Row]) -> None:
    """Two nodes of one process each, as torchrun starts them, that talk by Gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = [
        subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "torch.distributed.run",
                    "--nnodes=2",
                    f"--node-rank={rank}",
                ),
                *("--master-addr=127.0.0.1", f"--master-port={port}", "--nproc-per-node=1"),
                *("-m", "benchmarks", *command(settings, "--num-nodes=2", "--devices=1")),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]
    said = [node.communicate()[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    folder = RunFolder(settings.out)
    assert_same(sorted(folder.rows(), key=_place(whole)), whole)


def _place(rows: list[Row]) -> Callable[[Row], int]:
    places = {row.key: place for place, row in enumerate(rows)}
    return lambda row: places[row.key]


def test_a_full_disk_keeps_the_rows(settings: RunSettings) -> None:
    limited = (
        "import resource, sys; from benchmarks.__main__ import app; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY)); "
        "app(sys.argv[1:])"
    )
    many = replace(
        settings,
        methods=[MethodSpec("random", {"seed": seed}) for seed in range(60)],
        measures=["DeletionInsertion.official"],  # its curves are long
        n_shown=0,
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *command(many)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    message = " ".join(done.stderr.split())
    assert "cannot be written" in message
    assert "the same command continues" in message
    rows = RunFolder(settings.out).rows()
    assert rows
    assert all(row.error is None for row in rows)
