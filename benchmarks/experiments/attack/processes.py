"""Attacks on runs of two processes.

As a program, ``python -m benchmarks.experiments.attack.processes ATTACK DIR``, it is what is
attacked: a run that starts its second process itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...data import Sample
from ...run.folder import RunFolder
from ...run.loop import run
from . import kinds
from .attacks import Attack, Outcome
from .runs import results_of, silent
from .toys import good_loaders, good_sample, settings, toys

__all__ = ["ATTACKS"]

_ROOT = Path(__file__).parents[__spec__.name.count(".")]
_KINDS = {**kinds.LOADERS, **kinds.LABELS, **kinds.BOXES, **kinds.MASKS, **kinds.IMAGES}
_OPTIONS = (
    "--model=attacked",
    "--dataset=attacked",
    "--methods=centre grad_cam",
    "--measures=PointingGame",
    "--n-shown=0",
    "--accelerator=cpu",
    "--devices=2",
    "--strategy=ddp",
)


def _spoilt(name: str, spoil: kinds.Spoil) -> Any:
    return spoil(good_sample(1, name))


def _bad_loaders() -> dict[str, Callable[[], Any]]:
    bad = {name: partial(_spoilt, name, spoil) for name, spoil in _KINDS.items()}
    return {**good_loaders(2), **bad, "good 9": partial(good_sample, 9)}


def _die(index: int) -> Sample:
    if index == 3 and os.environ.get("LOCAL_RANK") == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return good_sample(index)


def _victim(attack: str, out: str) -> None:
    from ...commands import app  # which knows the attacks

    torch.set_num_threads(1)
    loaders: dict[str, Callable[[], Any]] = (
        _bad_loaders() if attack == "bad" else {**good_loaders(6)}
    )
    if attack == "killed":
        loaders = {name: partial(_die, index) for index, name in enumerate(loaders)}
    seed = int(os.environ.get("LOCAL_RANK", "0")) if attack == "unequal" else 3
    weights = ("--weights=random",) if attack == "bad" else ()
    with toys(loaders, seed=seed):
        app(["compare", f"--out={out}", *_OPTIONS, *weights])


def _attacked(attack: str, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  this program itself
        [sys.executable, "-m", __spec__.name, attack, str(out)],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        check=False,
    )


def _bad_samples(folder: Path, _small: bool) -> Outcome:
    """Bad samples of all kinds, and random weights: two processes give the rows of one."""
    done = _attacked("bad", folder / "two")
    if done.returncode != 0:
        return Outcome(len(_KINDS), {"runs ended": 1, "rows changed": 0}, [done.stderr])
    with silent(), toys(_bad_loaders()):
        run(settings(folder / "one", measures=["PointingGame"], n_shown=0, weights="random"))
    one, two = results_of(folder / "one"), results_of(folder / "two")
    changed = [key for key in one.keys() | two.keys() if not _alike(one.get(key), two.get(key))]
    changed += [f"{path} is left over" for path in (folder / "two").glob("results-*.jsonl")]
    return Outcome(len(_KINDS), {"runs ended": 0, "rows changed": len(changed)}, changed)


def _alike(one: Any, two: Any) -> bool:
    """The same row but for rounding."""
    if one is None or two is None:
        return False
    scores, others = one.pop("scores", {}), two.pop("scores", {})
    return bool(one == two) and all(abs(scores[name] - others[name]) < 1e-5 for name in scores)


def _unequal_networks(folder: Path, _small: bool) -> Outcome:
    """Each process has a network of its own: the run does not begin, and says so in a line."""
    done = _attacked("unequal", folder / "run")
    said = done.stderr.split("other weights than the first")
    refused = done.returncode == 2 and len(said) == 2 and "Traceback" not in done.stderr
    wrong = not refused or (folder / "run" / "results.parquet").exists()
    return Outcome(1, {"networks mixed": int(wrong)}, [done.stderr] if wrong else [])


def _one_killed(folder: Path, small: bool) -> Outcome:
    """One of two processes is killed: the other ends, and the run goes on later."""
    if small:  # it takes a while until the other one notices
        return Outcome(0, {"rows lost": 0, "reported as success": 0})
    out = folder / "run"
    done = _attacked("killed", out)
    before = {row.key: row for row in RunFolder(out).rows()}
    with silent(), toys(good_loaders(6)):
        run(settings(out, measures=["PointingGame"], n_shown=0))
    after = {row.key: row for row in RunFolder(out).rows()}
    lost = [str(key) for key, row in before.items() if after.get(key) != row]
    missing = 6 * 2 * 2 - len(after)
    details = [*lost, *([done.stdout + done.stderr] if missing or not done.returncode else [])]
    return Outcome(
        1,
        {"rows lost": len(lost) + missing, "reported as success": int(not done.returncode)},
        details,
    )


ATTACKS: tuple[Attack, ...] = (
    Attack("bad samples of all kinds, two processes", "runs", _bad_samples),
    Attack("another network in the second process", "runs", _unequal_networks),
    Attack("one of two processes is killed", "runs", _one_killed),
)

if __name__ == "__main__":
    _victim(*sys.argv[1:])
