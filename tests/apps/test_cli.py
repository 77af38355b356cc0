"""The command line: arguments that it refuses, its help, `demo`, and its start."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import captum_groupcam.apps
from captum_groupcam.__main__ import main
from captum_groupcam.methods import METHODS
from tests.apps.command_line import run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--method", "no_cam"],
            "Unknown method 'no_cam'; did you mean",
        ),
        (["--model", "efficientnet_lite"], "efficientnet_lite0"),
        (["--layer", "_blocks.99"], "no layer '_blocks.99'; did you mean _blocks.9"),
        (["--target", "tabbi"], "No class is named 'tabbi'; did you mean one of tabby (281)"),
        (["--target", "1000"], "Class 1000 is out of range, there are 1000 classes"),
        (["--method", "group_cam:n_gruops=8"], "no option 'n_gruops'; did you mean n_groups?"),
        (["--method", "group_cam:denoise_percentile=much"], "must be float | None, got 'much'"),
        (["--method", "group_cam_consensus:gradient_free=True"], "no option 'gradient_free'"),
        (["--device", "abacus"], "Device 'abacus' cannot be used"),
        (["--weights", "nowhere.pth"], "Unknown weights 'nowhere.pth'"),
        (["--method", "all:n_groups=8"], "Unknown method 'all'"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, cat_file: Path) -> None:
    result = run("explain", cat_file, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_help_lists_what_is_registered(monkeypatch) -> None:
    method = replace(METHODS["grad_cam"], name="mine_alone")
    assert "mine_alone" not in run("explain", "--help").output
    monkeypatch.setitem(METHODS, "mine_alone", method)
    assert "mine_alone" in run("explain", "--help").output


def test_the_demo_writes_one_picture(tmp_path: Path) -> None:
    path = tmp_path / "new" / "demo.png"
    result = run("demo", "--out", path, "--n-groups", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == str(path.resolve())
    with Image.open(path) as picture:
        assert picture.width > 900


def test_the_demo_overwrites_nothing_of_others(tmp_path: Path) -> None:
    path = tmp_path / "demo.png"
    path.write_text("precious")
    result = run("demo", "--out", path, "--n-groups", 1)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert path.read_text() == "precious"


def test_main_runs_the_command_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["captum-groupcam", "--help"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert "explain" in capsys.readouterr().out


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_main_says_what_to_install(monkeypatch, package: str) -> None:
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "captum_groupcam.apps.cli")
    monkeypatch.delattr(captum_groupcam.apps, "cli")
    with pytest.raises(
        SystemExit, match=rf"package {package}.*pip install 'captum_groupcam\[cli\]'"
    ):
        main()
