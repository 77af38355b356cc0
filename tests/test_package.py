from __future__ import annotations

import ast
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import captum_groupcam
from captum_groupcam.apps.names import OFFERED_METHODS
from captum_groupcam.methods import offered_methods

ROOT = Path(__file__).parents[1]

# What an application that explains one image should not have to load. Captum itself imports
# matplotlib and scipy.
HEAVY = ["cv2", "pandas", "quantus", "rich", "saliency", "skimage", "sklearn", "timm", "typer"]
# What is there wherever the library is: its dependencies, and three of theirs.
INSTALLED = {"captum", "matplotlib", "numpy", "PIL", "torch", "torchmetrics", "torchvision"}
INSTALLED |= {"typing_extensions"}
# Of these, what takes no time.
SMALL = {"typing_extensions"}
# What an extra brings, and where it may be imported at once.
EXTRAS = {
    "apps/_doctor.py": {"packaging"},
    "apps/_explain.py": {"rich"},
    "apps/_figures.py": {"rich"},
    "apps/cli.py": {"rich", "typer"},
    "apps/console.py": {"rich", "typer"},
    "apps/options.py": {"typer"},
    "apps/explorer/_files.py": {"filelock"},
    "apps/explorer/_gradio.py": {"gradio"},
    "apps/explorer/_guard.py": {"starlette"},
    "apps/explorer/_options.py": {"docstring_parser"},
}


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return {name.partition(".")[0] for name in run.stdout.splitlines()[-1].split()}


def test_import_is_light():
    assert modules_after("from captum_groupcam import *").isdisjoint(HEAVY)


def test_public_names_are_imported_when_they_are_asked_for():
    assert modules_after("import captum_groupcam").isdisjoint({"torch", "captum", "numpy"})
    assert set(captum_groupcam.__all__) <= set(dir(captum_groupcam))
    with pytest.raises(AttributeError, match="has no attribute 'NoCAM'"):
        _ = captum_groupcam.NoCAM


BENCHMARK = ["compare", "ablate", "sanity", "speed", "memory", "finetune", "report"]
ASKING = """
import runpy, sys
sys.argv = ["", *{arguments}, "--help"]
try:
    runpy.run_module("{module}", run_name="__main__", alter_sys=True)
except SystemExit as ending:
    assert ending.code == 0
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        *(("captum_groupcam", name.split()) for name in ["", "explain", "explore", "demo"]),
        *(("captum_groupcam", [name]) for name in BENCHMARK),
        ("benchmarks", []),
        ("benchmarks", ["attack"]),
    ],
)
def test_help_imports_nothing_heavy(module, arguments):
    loaded = modules_after(ASKING.format(module=module, arguments=arguments))
    light = {"rich", "typer", *SMALL}
    assert loaded.isdisjoint({*HEAVY, *INSTALLED, "gradio", "lightning_fabric"} - light)


def test_help_lists_what_there_is():
    assert list(OFFERED_METHODS) == offered_methods()


def test_the_look_at_loaded_modules_sees_what_is_loaded():
    assert "sklearn" in modules_after("import sklearn.cluster")


def imported_at_once(tree: ast.AST) -> Iterator[str]:
    """The top-level modules that a module imports when it is imported itself."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imported_at_once(node)


def test_extras_are_imported_where_they_are_needed():
    package = ROOT / "captum_groupcam"
    here = sys.stdlib_module_names | INSTALLED | {"captum_groupcam"}
    for path in package.rglob("*.py"):
        extras = set(imported_at_once(ast.parse(path.read_text(encoding="utf-8")))) - here
        assert extras <= EXTRAS.get(path.relative_to(package).as_posix(), set()), path


def test_version_is_that_of_the_installed_package():
    assert captum_groupcam.__version__ == importlib.metadata.version("captum_groupcam")


def test_public_names_exist():
    assert all(hasattr(captum_groupcam, name) for name in captum_groupcam.__all__)


def test_package_is_typed():
    assert (Path(captum_groupcam.__file__).parent / "py.typed").is_file()


def public_modules() -> set[str]:
    names = {m.name for m in pkgutil.walk_packages(captum_groupcam.__path__, "captum_groupcam.")}
    # documented by --help
    modules = ("benchmark", "cli", "console", "names", "options")
    commands = {f"captum_groupcam.apps.{name}" for name in modules}
    return {name for name in names - commands if "._" not in name}


def test_reference_has_every_public_module():
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    reference = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    directives = re.findall(r"(auto|py:)module:: (\S+)\n( +:no-members:)?", reference)
    named = {name for _, name, _ in directives if name.split(".")[0] == "captum_groupcam"}
    # A package that exports what its modules define stands for them.
    exporting = {name for kind, name, without in directives if kind == "auto" and not without}
    missing = {
        name
        for name in public_modules()
        if name not in named and name.rpartition(".")[0] not in exporting
    }
    assert not missing
    assert named <= public_modules() | {"captum_groupcam"}
