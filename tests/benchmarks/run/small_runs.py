"""Methods and measures of the small runs, and how their rows are compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.run.rows import Row
from captum_groupcam.methods import MethodSpec

N_SAMPLES = 3
SPECS = [MethodSpec("centre"), MethodSpec("grad_cam"), MethodSpec("random", {"seed": 1})]
MEASURED = ["AverageDrop", "PointingGame"]


def assert_same(rows: list[Row], expected: list[Row]) -> None:
    """The same rows in the same order but for what takes time, and for rounding."""
    timed = {"seconds", "forward_passes"}

    def about(row: Row) -> Row:
        return replace(row, seconds=0, scores=dict.fromkeys(row.scores, 0.0))

    assert [about(row) for row in rows] == [about(row) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        scores = {name: value for name, value in row.scores.items() if name not in timed}
        for name, value in scores.items():
            assert value == pytest.approx(other.scores[name], rel=1e-3, abs=1e-6), row.key
