"""All attacks, theme by theme."""

from __future__ import annotations

from . import calls, explorer, files, folders, interruptions, kills, processes, runs, threads
from .attacks import Attack

__all__ = ["ATTACKS"]

#: The attacks in the order of the table. A further theme is a module with a tuple of its own.
ATTACKS: tuple[Attack, ...] = (
    *runs.ATTACKS,
    *kills.ATTACKS,
    *processes.ATTACKS,
    *folders.ATTACKS,
    *files.ATTACKS,
    *calls.ATTACKS,
    *interruptions.ATTACKS,
    *threads.ATTACKS,
    *explorer.ATTACKS,
)
