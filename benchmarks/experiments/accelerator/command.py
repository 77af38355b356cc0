"""``python -m benchmarks accelerator``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["accelerator"]


def accelerator(
    names: Annotated[list[str] | None, typer.Argument(help="Checks by name. All if none.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ... Otherwise cuda if there is one.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The file of results; a table lies beside it.")] = Path(
        "out/accelerator.json"
    ),
    *,
    small: Annotated[
        bool, typer.Option("--small", help="A small network and few images, as in the tests.")
    ] = False,
) -> None:
    """Checks an accelerator: memory, precision, repeatability and speed."""
    import torch

    from .results import run_checks

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if not run_checks(names, torch.device(chosen), out, small=small):
        raise typer.Exit(1)
