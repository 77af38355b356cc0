"""Each row of docs/how-to/own-networks.md, run."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from captum_groupcam.apps.cli import app
from captum_groupcam.methods import METHODS
from tests.own_networks import NAMES, forgotten, prepare, prepare_others

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "own-networks.md").read_text("utf-8")
TOML = PAGE.partition("```toml\n")[2].partition("```")[0]
WELL, _, WRONGLY = PAGE.partition("## Mistakes in a command")
ROWS = re.findall(r"^\| ([^|]+) \| `captum-groupcam ([^`|]+)` \|$", WELL, re.MULTILINE)
WRONG = re.findall(r"^\| `captum-groupcam ([^`|]+)` \| `([^`|]+)` \|$", WRONGLY, re.MULTILINE)


def rows_of(*commands: str) -> list[Any]:
    return [
        pytest.param(command, id=what)
        for what, command in ROWS
        if command.partition(" ")[0] in commands
    ]


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
    with forgotten():
        yield here
    registries = [METHODS]
    if "benchmarks.measures.registry" in sys.modules:
        registries.append(sys.modules["benchmarks.measures.registry"].MEASURES)
        registries.append(sys.modules["benchmarks.data"].DATASETS)
    for registry in registries:
        for name in [name for name in registry if name.startswith("mypkg.")]:
            del registry[name]


def test_the_page_has_a_row_for_each_kind() -> None:
    kinds = Counter(command.partition(" ")[0] for _, command in ROWS)
    expected = {"explain": 11, "explore": 2, "compare": 3, "ablate": 1, "sanity": 1, "finetune": 1}
    assert kinds == expected
    assert len(WRONG) >= 18


@pytest.mark.parametrize("command", rows_of("explain"))
def test_explained(command: str, folder: Path) -> None:
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, result.output
    assert len(list((folder / "out").glob("*.png"))) == 2
    named = any(part in command for part in ("class-names", "described", "toml", "hf:"))
    assert any(name in result.stdout for name in NAMES) or not named
    assert ("the weights under" in result.stdout) == any(
        name in command for name in ("best.pt", ".ckpt", "both.pt", ".toml")
    )


@pytest.mark.parametrize("command", rows_of("explore"))
def test_explored(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio")
    from captum_groupcam.apps import explorer

    served: dict[str, Any] = {}
    monkeypatch.setattr(explorer, "explore", lambda models, **_: served.update(models=models))
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, result.output
    (found,) = served["models"]
    typed = shlex.split(command)[1:]
    if isinstance(found, str):
        assert ["--model", found] == typed
        return
    # What the program that the page gives loads again.
    assert found.class_names == NAMES
    assert [f"--{key.replace('_', '-')}" for key in found.source] == ["--name", *typed[2::2]]
    assert list(found.source.values()) == typed[1::2]


@pytest.mark.parametrize("command", rows_of("compare", "ablate", "sanity"))
def test_measured(command: str, folder: Path) -> None:
    pytest.importorskip("quantus")
    (folder / "photos" / "notes.txt").touch()
    result = CliRunner().invoke(app, [*shlex.split(command), "--accelerator=cpu"])
    assert result.exit_code == 0, result.output
    out = re.search(r"--out (\S+)", command)
    run = folder / (out[1] if out else f"out/{command.partition(' ')[0]}")
    rows = pytest.importorskip("benchmarks.run.folder").RunFolder(run).rows()
    assert len(rows) >= 4
    assert not [row for row in rows if row.error]
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    model = re.search(r"--model (\S+)", command)
    assert model
    assert f"{model[1].removesuffix('.toml')} on " in page
    assert any(name in page for name in NAMES)
    if "photos" in command:
        assert "notes.txt" in page
        assert "notes.txt" in result.stdout
    if "mypkg.measures" in command:
        assert {"mypkg.measures:spread"} <= {row.measure for row in rows}
        assert {"mypkg.methods:brightest:power=2"} <= {row.method for row in rows}


@pytest.mark.parametrize("command", rows_of("finetune"))
def test_fine_tuned(command: str, folder: Path) -> None:
    pytest.importorskip("lightning_fabric")
    result = CliRunner().invoke(app, [*shlex.split(command), "--accelerator=cpu"])
    assert result.exit_code == 0, result.output
    summary = (folder / "finetuned" / "summary.md").read_text()
    assert "mypkg.model:build" in summary
    assert re.search(r"^\| group_cam \| \d", summary, re.MULTILINE)


@pytest.mark.parametrize(("command", "message"), WRONG, ids=[command for command, _ in WRONG])
def test_typed_wrongly(
    command: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "explain" not in command:
        pytest.importorskip("gradio" if "explore" in command else "quantus")
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # as without a network
    (folder / "names.json").write_text('["cat", "dog"]')
    before = set(folder.rglob("*"))
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert len(result.stderr.splitlines()) == 1, result.stderr
    written = {path for path in set(folder.rglob("*")) - before if "__pycache__" not in path.parts}
    assert not written
