"""The benchmark inside of the package, as it lies in the wheel."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = [
    path
    for path in sorted((ROOT / "benchmarks").rglob("*.py"))
    if "results" not in path.relative_to(ROOT).parts
]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_does_not_ask_for_its_own_package_by_name(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        assert not [name for name in names if name.partition(".")[0] == "benchmarks"], ast.dump(
            node
        )


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "captum_groupcam", *arguments],
        env=os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "200"},
        cwd=installed / "elsewhere",
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as site-packages: nothing but the package, the benchmark in it."""
    folder = tmp_path_factory.mktemp("site-packages")
    (folder / "elsewhere").mkdir()
    package = folder / "captum_groupcam"
    shutil.copytree(ROOT / "captum_groupcam", package)
    ignored = shutil.ignore_patterns("results", "__pycache__")
    shutil.copytree(ROOT / "benchmarks", package / "_benchmarks", ignore=ignored)
    return folder


def test_the_commands_are_there(installed: Path) -> None:
    done = run(installed, "--help")
    assert done.returncode == 0, done.stderr
    for command in ("compare", "ablate", "sanity", "speed", "memory", "finetune", "report"):
        assert f" {command} " in done.stdout
    assert " attack " not in done.stdout


def test_a_run_and_its_report(installed: Path) -> None:
    options = ["--limit=1", "--methods=centre", "--measures=quantus.Sparseness", "--out=run"]
    done = run(installed, "compare", "--accelerator=cpu", *options)
    assert done.returncode == 0, done.stderr
    assert (installed / "elsewhere" / "run" / "report" / "index.html").is_file()


def test_without_its_extra_a_line_says_what_to_install(installed: Path) -> None:
    blocked = installed / "elsewhere" / "lightning_fabric.py"
    blocked.write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    server = run(installed, "compare")
    blocked.write_text("raise ModuleNotFoundError(name='lightning_fabric')")
    done = run(installed, "compare")
    blocked.unlink()
    assert (server.returncode, done.returncode) == (2, 2)
    assert "opencv-python-headless" in server.stderr
    assert len(server.stderr.splitlines()) == 1
    assert done.stderr == (
        "compare needs the package lightning_fabric: pip install 'captum_groupcam[bench]'\n"
    )


def test_a_package_of_the_users_that_is_called_benchmarks(installed: Path) -> None:
    own = installed / "elsewhere" / "benchmarks"
    own.mkdir()
    (own / "__init__.py").write_text("raise SystemExit('imported')")
    assert run(installed, "--help").returncode == 0
    shutil.move(installed / "captum_groupcam" / "_benchmarks", installed / "benchmark_away")
    try:
        without = run(installed, "--help")
        assert without.returncode == 0, without.stderr
        assert "compare" not in without.stdout
    finally:
        shutil.move(installed / "benchmark_away", installed / "captum_groupcam" / "_benchmarks")
        shutil.rmtree(own)
