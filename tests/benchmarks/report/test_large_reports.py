"""Reports of large runs: a small one, made by the same generator, and computed again by hand."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.experiments.large_reports import used
from benchmarks.experiments.made_run import make_run
from benchmarks.report import write_report

ROOT = Path(__file__).parents[3]
N_SAMPLES, N_METHODS = 1000, 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"), N_SAMPLES, N_METHODS, seed=1).path


@pytest.fixture(scope="module")
def out(run: Path) -> Path:
    return write_report([run], run / "report").parent


def lines_of(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_made_run_depends_on_its_seed_alone(tmp_path: Path) -> None:
    made = {
        name: (make_run(tmp_path / name, 4, 2, seed=seed).path / "results-0.jsonl").read_bytes()
        for name, seed in (("one", 0), ("again", 0), ("other", 1))
    }
    assert made["one"] == made["again"] != made["other"]
    assert made["one"].count(b"\n") == 4 * 2 * 4


def test_tables_are_what_the_lines_say(run: Path, out: Path) -> None:
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in (run / "results-0.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, value in row["scores"].items():
            values[row["method"], name].append(value)
    seen = 0
    for line in lines_of(out):
        if line["subset"] != "all samples" or "," in line["score"]:
            continue
        seen += 1
        own = np.array(values[line["method"], line["score"]])
        assert int(line["n"]) == N_SAMPLES
        assert float(line["mean"]) == pytest.approx(own.mean())
        half = 1.96 * own.std() / np.sqrt(N_SAMPLES)
        assert float(line["high"]) - own.mean() == pytest.approx(half, rel=0.05, abs=1e-12)
        if line["difference"]:
            gains = own - np.array(values["group_cam", line["score"]])
            assert float(line["difference"]) == pytest.approx(gains.mean(), abs=1e-12)
    assert seen == N_METHODS * 8


def test_curves_are_drawn_for_each_method(out: Path) -> None:
    drawn = [path.name for path in (out / "figures" / "made_on_made").glob("DeletionInsertion*")]
    assert len(drawn) == N_METHODS


def test_lines_and_what_was_put_together_give_the_same_report(
    run: Path, out: Path, tmp_path: Path
) -> None:
    copy = make_run(tmp_path / "run", N_SAMPLES, N_METHODS, seed=1)
    size = (copy.path / "results-0.jsonl").stat().st_size
    copy.finish([])
    assert not (copy.path / "results-0.jsonl").exists()
    assert (copy.path / "results.parquet").stat().st_size < size / 4
    again = write_report([copy.path], tmp_path / "report").parent
    for name in ("index.html", "table.csv", "table.md", "verdict.md"):
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_what_a_process_uses() -> None:
    little = used(["-c", "pass"])
    much = used(["-c", "x = bytearray(200_000_000)"])
    assert much.megabytes - little.megabytes > 150
    assert little.cpu_seconds > 0
    with pytest.raises(RuntimeError, match="ended with 3"):
        used(["-c", "import sys; sys.exit(3)"])


def test_a_report_imports_little_beside_torch_and_matplotlib(run: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from benchmarks.report import write_report
write_report([Path({str(run)!r})], Path({str(tmp_path)!r}))
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    heavy = {"captum", "lightning_fabric", "quantus", "scipy.stats", "torchmetrics", "torchvision"}
    assert heavy.isdisjoint(done.stdout.split())
    assert {"torch", "matplotlib"} <= set(done.stdout.split())


def test_what_memory_is_not_measured_of() -> None:
    found = CliRunner().invoke(app, ["memory", "rows"])
    assert found.exit_code == 2
    assert "maps or reports, got 'rows'" in found.output
