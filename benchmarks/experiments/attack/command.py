"""``python -m benchmarks attack``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer

from ...data import printable
from .attacks import NotTried, Outcome
from .registry import ATTACKS

__all__ = ["attack"]

_THEMES = tuple(dict.fromkeys(one.theme for one in ATTACKS))


def attack(
    themes: Annotated[
        list[str] | None, typer.Argument(help=f"Any of {', '.join(_THEMES)}. All if none.")
    ] = None,
    *,
    small: Annotated[
        bool, typer.Option("--small", help="A few tries of each kind, as in the tests.")
    ] = False,
) -> None:
    """Attacks runs, files, calls and the explorer, and counts the damage: none is expected."""
    unknown = sorted({*(themes or ())} - {*_THEMES})
    if unknown:
        raise ValueError(f"Unknown: {', '.join(unknown)}; known are {', '.join(_THEMES)}.")
    torch.set_num_threads(1)  # for small networks, and for forks
    details: list[str] = []
    typer.echo("| theme | what is done | tries | what must not happen | times |")
    typer.echo("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as work:
        for place, one in enumerate(ATTACKS):
            if one.theme not in (themes or _THEMES):
                continue
            folder = Path(work) / str(place)
            folder.mkdir()
            try:
                outcome = one.run(folder, small)
            except NotTried as error:
                typer.echo(f"| {one.theme} | {one.name} | 0 | not tried: {error} | |")
                continue
            except Exception as error:  # the other attacks are still to come
                outcome = Outcome(1, {"ended": 1}, [f"{type(error).__name__}: {error}"])
            for fault, count in outcome.faults.items():
                typer.echo(f"| {one.theme} | {one.name} | {outcome.tried} | {fault} | {count} |")
            details += [f"{one.name}: {detail}" for detail in outcome.details]
    for detail in details:
        typer.echo(printable(detail))
    if details:
        raise typer.Exit(1)
