"""Each row of docs/how-to/own-networks.md, run."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from captum_groupcam.apps.cli import app
from captum_groupcam.methods import METHODS
from tests.own_networks import NAMES, forgotten, prepare, prepare_others

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "own-networks.md").read_text("utf-8")
TOML = PAGE.partition("```toml\n")[2].partition("```")[0]
ROWS = re.findall(r"^\| ([^|]+) \| `captum-groupcam (explain [^`|]+)` \|$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("timm", "transformers", "safetensors"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("own")
    prepare(folder, TOML)
    prepare_others(folder)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, the current folder."""
    here = shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(here)
    methods = dict(METHODS)
    with forgotten():
        yield here
    METHODS.clear()
    METHODS.update(methods)


def test_the_page_has_a_row_for_each_kind() -> None:
    assert len(ROWS) >= 11


@pytest.mark.parametrize(("what", "command"), ROWS, ids=[what for what, _ in ROWS])
def test_what_you_have_and_what_you_type(what: str, command: str, folder: Path) -> None:
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, result.output
    assert len(list((folder / "out").glob("*.png"))) == 2
    named = "class-names" in command or "described" in command or "toml" in command or "hf:" in what
    assert any(name in result.stdout for name in NAMES) or not named
    assert ("the weights under" in result.stdout) == any(
        name in command for name in ("best.pt", ".ckpt", "both.pt", ".toml")
    )
