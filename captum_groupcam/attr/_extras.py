"""Packages that an extra brings."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["imported"]


def imported(module: str, package: str, extra: str, *, by: str = "This", instead: str = "") -> Any:
    """A module of a package that an extra brings, or an error that names the extra."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{by} needs the package {package}: pip install 'captum_groupcam[{extra}]'{instead}.",
            name=error.name,
        ) from error
