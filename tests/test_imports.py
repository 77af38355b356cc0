"""Who may import what: the layers of docs/architecture.md, read from the sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "captum_groupcam"

#: From the ground up. A module imports from layers below, and from its own group; the groups of a
#: layer stand beside each other and do not know each other.
LAYERS: list[list[set[str]]] = [
    [{"_captum"}],
    [{"_bootstrap"}, {"_guided_filter"}, {"_maps"}, {"_targets"}, {"_trace"}],
    [{"masking"}],
    [{"_call"}],
    [{"layers", "transformers"}, {"outputs"}, {"images"}],
    [
        {"cam"},
        {"grad_cam_plus_plus"},
        {"group_cam"},
        {"rise"},
        {"score_cam"},
        {"selective"},
        {"xrai"},
        {"_guided", "_method"},
        {"metrics"},
    ],
    [{"methods"}, {"models"}, {"visualization"}],
    [{"augmentation"}, {"insights"}, {"layer_advice"}, {"uncertainty"}],
    [{"explorer"}],
    [{"cli"}],
    [{"__init__", "__main__"}],
]
PLACES = {
    module: (height, group)
    for height, layer in enumerate(LAYERS)
    for group in layer
    for module in group
}
#: What is there wherever the library is: its dependencies, and two of theirs.
INSTALLED = {"captum", "matplotlib", "numpy", "PIL", "torch", "torchmetrics", "torchvision"}
#: Modules that an extra brings, and where they may be imported at once.
EXTRAS = {"cli.py": {"rich", "typer"}, "explorer/_gradio.py": {"gradio"}}


def sources(package: Path = PACKAGE) -> dict[str, ast.Module]:
    return {
        path.relative_to(package).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(package.rglob("*.py"))
    }


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Dotted names of the modules that statements import; of a package, with what is taken."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def at_import_time(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module that are not inside a function."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            yield from at_import_time(node)


def part_of(path: str) -> str:
    """The module of the package that a file is or belongs to."""
    return path.partition("/")[0].removesuffix(".py")


def test_nothing_imports_upwards() -> None:
    upwards = []
    for path, tree in sources().items():
        height, group = PLACES[part_of(path)]
        for name in imported(ast.walk(tree)):
            package, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if package != "captum_groupcam" or other in group or other not in PLACES:
                continue
            if PLACES[other][0] >= height:
                upwards.append(f"{path} imports {other}")
    assert upwards == []


def test_every_module_has_its_place() -> None:
    """In ``LAYERS``, and in the page that draws them."""
    modules = {part_of(path) for path in sources()}
    assert modules == PLACES.keys()
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [name for name in modules if not name.startswith("__") and name not in page] == []


def test_the_library_does_not_know_the_benchmark() -> None:
    names = {name for tree in sources().values() for name in imported(ast.walk(tree))}
    assert {name.partition(".")[0] for name in names}.isdisjoint({"benchmarks", "tests", "docs"})


def test_what_is_private_in_captum_has_one_importer() -> None:
    files = {
        f"{package}/{path}": imported(ast.walk(tree))
        for package in ("captum_groupcam", "benchmarks")
        for path, tree in sources(ROOT / package).items()
    }
    importers = {
        path
        for path, names in files.items()
        if any(name.startswith("captum.") and "._" in name for name in names)
    }
    assert importers == {"captum_groupcam/_captum.py"}


def test_extras_are_imported_where_they_are_needed() -> None:
    for path, tree in sources().items():
        names = {name.partition(".")[0] for name in imported(at_import_time(tree))}
        optional = names - sys.stdlib_module_names - INSTALLED - {"captum_groupcam"}
        assert optional <= EXTRAS.get(path, set()), path
