"""Several processes on one device make the rows of one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from captum_groupcam.methods import MethodSpec

from ...run.folder import RunFolder
from ...run.loop import RunSettings, run
from ...run.rows import Row
from .setting import ROUNDING, Finding, Setting

__all__ = ["processes"]

_COUNT = 2
_TIMES = ("seconds", "forward_passes")


def processes(setting: Setting) -> Finding:
    """Two processes, each with every other sample, make the rows of one."""
    network, data = next(iter(setting.sizes.networks)), setting.sizes.data
    given = (setting.device.type, data, network)
    with tempfile.TemporaryDirectory() as work:
        outs = [Path(work) / str(rank) for rank in range(_COUNT)]
        parts = [
            subprocess.Popen(  # noqa: S603 (this very module)
                [sys.executable, "-m", __name__, *given, str(out), f"{rank}::{_COUNT}"],
                stdout=subprocess.DEVNULL,
            )
            for rank, out in enumerate(outs)
        ]
        alone = _evaluate(*given, str(Path(work) / "alone"))
        codes = [part.wait() for part in parts]
        if any(codes):
            raise RuntimeError(f"The processes ended with {codes}.")
        found = [row for out in outs for row in RunFolder(out).rows()]
    by_key = {row.key: row for row in found}
    complete = len(by_key) == len(found) and by_key.keys() == {row.key for row in alone}
    distance = max(_apart(by_key[row.key], row) for row in alone) if complete else None
    return Finding(
        f"{len(found)} rows for {len(alone)}"
        + ("" if distance is None else f", scores differ by {distance:.1e}"),
        distance is not None and distance <= ROUNDING,
        {"rows": len(found), "distance": distance},
    )


def _evaluate(
    accelerator: str, data: str, network: str, out: str, samples: str | None = None
) -> list[Row]:
    folder = run(
        RunSettings(
            Path(out),
            [MethodSpec.parse("group_cam"), MethodSpec.parse("grad_cam")],
            ["DeletionInsertion.official"],
            dataset=data,
            model=network,
            samples=samples,
            n_shown=0,
            accelerator=accelerator,
        )
    )
    assert folder is not None
    return folder.rows()


def _apart(found: Row, expected: Row) -> float:
    """The largest difference of scores, but for those that are times."""
    if bool(found.error) != bool(expected.error):
        return float("inf")
    both = found.scores.keys() | expected.scores.keys()
    return max(
        (
            abs(found.scores.get(name, float("inf")) - expected.scores.get(name, float("inf")))
            for name in both - {*_TIMES}
        ),
        default=0.0,
    )


if __name__ == "__main__":
    from ...data import planted_network  # noqa: F401  registers the small networks

    _evaluate(*sys.argv[1:])
