"""Public names that are imported when they are first asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy"]


def lazy(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes the functions ``__getattr__`` and ``__dir__`` of a package.

    torch, captum and torchmetrics take seconds to import, which what does not need them does
    without.

    Args:
        package (str): Its name.
        homes (mapping of str to str): Each public name, and the module of the package with it.

    Examples::

        >>> get, _ = lazy("email", {"Message": "message"})
        >>> get("Message").__name__
        'Message'
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
