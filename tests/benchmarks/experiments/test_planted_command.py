"""The command that trains and proves the networks of planted evidence."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from benchmarks.__main__ import app

RUNNER = CliRunner()


def test_the_proof_of_the_network_that_comes_along() -> None:
    result = RUNNER.invoke(app, ["planted", "prove", "--n=20", "--threads=1"])
    assert result.exit_code == 0, result.output
    assert "of 20 images 100.0 % are classified rightly" in result.output


def test_training_for_too_short_a_time_proves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "weights.pt"
    arguments = ["planted", "train", "--steps=2", "--n=20", "--threads=1", f"--out={out}"]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 2
    assert out.is_file()
    assert out.stat().st_size < 1_000_000
    assert "train it for longer" in " ".join(result.output.split())


def test_an_unknown_action_is_said() -> None:
    result = RUNNER.invoke(app, ["planted", "draw"])
    assert result.exit_code == 2
    assert "Expected train or prove" in result.output
