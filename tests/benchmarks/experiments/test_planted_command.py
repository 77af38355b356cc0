"""The command that trains and proves the networks of planted evidence."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app

RUNNER = CliRunner()


@pytest.mark.parametrize("architecture", ["residual", "transformer"])
def test_the_proof_of_the_networks_that_come_along(architecture: str) -> None:
    arguments = ["planted", "prove", "--n=20", "--threads=1", f"--architecture={architecture}"]
    result = RUNNER.invoke(app, arguments)
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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["draw"], "Expected train or prove, got 'draw'"),
        (["prove", "--variant=dot"], "Expected patch or mark, got 'dot'"),
        (["prove", "--architecture=mlp"], "Expected residual or transformer, got 'mlp'"),
    ],
)
def test_what_is_unknown_is_said(arguments: list[str], expected: str) -> None:
    result = RUNNER.invoke(app, ["planted", *arguments])
    assert result.exit_code == 2
    assert expected in " ".join(result.output.split())
