"""How far a run is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Reporter", "progress_of"]


class Reporter(Protocol):
    """Shows how far a run is."""

    def now(self, sample: str) -> None:
        """Names what is worked on."""

    def advance(self, count: int) -> None:
        """Counts results."""


class _Bar:
    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._task = progress, progress.add_task("", total=total)

    def now(self, sample: str) -> None:
        self._progress.update(self._task, description=sample[-30:])

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)


class _Log:
    """A line a minute, where there is no terminal to draw in."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._count = console, total, 0
        self._start = self._last = time.monotonic()

    def now(self, sample: str) -> None:
        pass

    def advance(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        if now - self._last >= 60 and self._count:
            self._last = now
            left = (now - self._start) / self._count * (self._total - self._count) / 60
            self._console.print(f"{self._count} of {self._total}, {left:.0f} min left")


@contextmanager
def progress_of(console: Console, total: int) -> Iterator[Reporter]:
    """Shows how far a run is: a bar in a terminal, else a line a minute.

    Args:
        console (Console): Where.
        total (int): Number of results.

    Yields:
        Reporter: Takes what is done.
    """
    if not console.is_terminal:
        yield _Log(console, total)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, speed_estimate_period=600) as progress:
        yield _Bar(progress, total)
