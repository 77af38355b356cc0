"""``python -m benchmarks attack``."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from ...data import printable
from .attacks import NotTried, Outcome
from .registry import ATTACKS

__all__ = ["attack"]

#: Attacks at once.
_PROCESSES = 2
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
    chosen = [place for place, one in enumerate(ATTACKS) if one.theme in (themes or _THEMES)]
    details: list[str] = []
    typer.echo("| theme | what is done | tries | what must not happen | times |")
    typer.echo("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as work:
        for place, outcome in zip(chosen, _outcomes(chosen, Path(work), small), strict=True):
            one = ATTACKS[place]
            if isinstance(outcome, NotTried):
                typer.echo(f"| {one.theme} | {one.name} | 0 | not tried: {outcome} | |")
                continue
            for fault, count in outcome.faults.items():
                typer.echo(f"| {one.theme} | {one.name} | {outcome.tried} | {fault} | {count} |")
            details += [f"{one.name}: {detail}" for detail in outcome.details]
    for detail in details:
        typer.echo(printable(detail))
    if details:
        raise typer.Exit(1)


def _outcomes(places: Sequence[int], work: Path, small: bool) -> Iterator[Outcome | NotTried]:
    """What comes of each attack, in their order; a few tries are not worth other processes."""
    tried = partial(_tried, work=work, small=small)
    if small:
        yield from map(tried, places)
        return
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, spawned) as pool:
        yield from pool.map(tried, places)


def _tried(place: int, *, work: Path, small: bool) -> Outcome | NotTried:
    torch.set_num_threads(1)  # for small networks, and for forks
    folder = work / str(place)
    folder.mkdir()
    try:
        return ATTACKS[place].run(folder, small)
    except NotTried as error:
        return error
    except Exception as error:  # the other attacks are still to come
        return Outcome(1, {"ended": 1}, [f"{type(error).__name__}: {error}"])
