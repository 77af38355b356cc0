"""`captum-groupcam doctor`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest
import torch
from typer.testing import CliRunner

from captum_groupcam.apps._doctor import diagnosis
from captum_groupcam.apps.cli import app


def test_it_names_versions_devices_and_what_works() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"captum_groupcam {version('captum_groupcam')}"
    for name in ("torch", "torchvision", "captum", "numpy", "torchmetrics"):
        assert f"{name} {version(name)}" in lines
    assert "extra cli: installed" in lines
    (insights,) = (line for line in lines if line.startswith("extra insights: "))
    assert insights.endswith("(goes with captum 0.8 only: use an environment of its own)")
    devices = [line.partition(": ")[0] for line in lines if "GroupCAM works" in line]
    assert devices[0] == "cpu"
    assert len(devices) >= 1 + torch.cuda.device_count()


def test_it_says_what_an_extra_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> str:
        if name == "gradio":
            raise PackageNotFoundError(name)
        return "0.0.1" if name == "scikit-learn" else version(name)

    monkeypatch.setattr("captum_groupcam.apps._doctor.version", found)
    lines = {line.partition(":")[0]: line for line in diagnosis()}
    # The explorer brings the extra cluster along.
    explorer = lines["extra explorer"]
    assert "gradio is missing" in explorer
    assert "scikit-learn 0.0.1, expected >=1.4" in explorer
    assert "scikit-learn" in lines["extra cluster"]
    assert lines["extra cli"] == "extra cli: installed"


def test_a_device_that_fails_is_part_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: str) -> torch.Tensor:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr("captum_groupcam.apps._doctor._maps", fail)
    assert any("GroupCAM fails: RuntimeError: no kernel image" in line for line in diagnosis())


def test_the_seed_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    diagnosis()
    assert torch.equal(torch.rand(1), expected)
