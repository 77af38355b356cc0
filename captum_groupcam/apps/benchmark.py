"""The benchmark's commands, where it is installed: the one place that knows of it.

It lies in the wheel as ``captum_groupcam._benchmarks``, and in a checkout beside this package, as
``benchmarks``. Neither is imported by its name, so that the library can be read, checked and used
without it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

__all__ = ["benchmark_commands"]

_INSTALLED, _BESIDE = "captum_groupcam._benchmarks", "benchmarks"
_PACKAGE = Path(__file__).parents[1]


def benchmark_commands() -> tuple[Callable[..., None], ...]:
    """Finds the commands; what they need is imported when one runs.

    Returns:
        tuple of Callable: The commands, their options declared in typer's way; empty where there is
        no benchmark.
    """
    if (_PACKAGE / "_benchmarks").is_dir():
        return tuple(import_module(f"{_INSTALLED}.commands").COMMANDS)
    spec = find_spec(_BESIDE)
    # Another package may have that name.
    if spec is None or spec.origin != str(_PACKAGE.parent / _BESIDE / "__init__.py"):
        return ()
    return tuple(import_module(f"{_BESIDE}.commands").COMMANDS)
