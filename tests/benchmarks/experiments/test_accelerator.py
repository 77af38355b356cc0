"""The check of an accelerator, on the CPU with a small network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.experiments.accelerator import checks, results
from benchmarks.experiments.accelerator.setting import FULL, SMALL, Check, Finding, Setting

CPU = torch.device("cpu")


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["accelerator", "--small", "--device=cpu", *arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_each_finding_is_kept_with_its_verdict(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    run("memory", "out_of_memory", "autocast", "same_twice", f"--out={out}")
    run("batch_sizes", "deletion_insertion", f"--out={out}")  # beside the others
    found = json.loads(out.read_text())
    assert found["device"] == "cpu"
    passed = {name: check["passed"] for name, check in found["checks"].items()}
    assert passed == {
        "memory": None,  # the CPU does not say
        "out_of_memory": True,
        "autocast": True,
        "same_twice": True,
        "batch_sizes": None,
        "deletion_insertion": None,
    }
    rows = found["checks"]["out_of_memory"]["numbers"]
    assert (max(rows["asked"]), max(rows["answered"])) == (4, 2)
    table = out.with_suffix(".md").read_text()
    assert table == results.markdown_of(found)
    rates = found["checks"]["batch_sizes"]["numbers"]["planted"]
    for size in SMALL.batch_sizes:
        cells = [f"{rates[what][str(size)]:.0f}" for what in ("images_a_second", "maps_a_second")]
        assert f"| {size} | {' | '.join(cells)} |" in table


def test_two_processes_make_the_same_rows() -> None:
    finding = checks.processes(Setting(CPU, SMALL))
    assert finding.passed
    assert finding.numbers["rows"] == 2 * 2 * 2  # samples, methods; the cost is a measure, too
    assert finding.numbers["distance"] == 0


def test_what_differs_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    explain = Setting.explain

    def noisy(self: Setting, images: torch.Tensor, **how: object) -> torch.Tensor:
        maps = explain(self, images, **how)  # type: ignore[arg-type]
        return maps + 0.1 * torch.rand(maps.shape[1:]) * maps.abs().amax()

    monkeypatch.setattr(Setting, "explain", noisy)
    out = tmp_path / "found.json"
    assert not results.run_checks(["same_twice", "out_of_memory", "autocast"], CPU, out, small=True)
    found = json.loads(out.read_text())["checks"]
    assert [check["passed"] for check in found.values()] == [False, False, False]
    assert out.with_suffix(".md").read_text().count("**failed**") == 3


def test_a_check_that_breaks_has_failed_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_setting: Setting) -> Finding:
        raise RuntimeError("no kernel image")

    monkeypatch.setitem(results.ALL, "memory", Check("Memory", "", broken))
    out = tmp_path / "found.json"
    printed = run("memory", "same_twice", f"--out={out}", code=1)
    assert "RuntimeError: no kernel image" in printed
    assert [check["passed"] for check in json.loads(out.read_text())["checks"].values()] == [
        False,
        True,
    ]


def test_an_unknown_check_is_said() -> None:
    assert "Unknown: sound; known are memory, out_of_memory" in run("sound", code=2)


def test_images_differ_from_each_other() -> None:
    images = Setting(CPU, SMALL).images(3)
    assert len(images.flatten(1).unique(dim=0)) == 3


def test_the_full_check_goes_to_batches_of_256() -> None:
    assert FULL.batch_sizes == tuple(2**power for power in range(9))
