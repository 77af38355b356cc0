"""One run at a time in a folder."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from .rows import RowError, write_atomically

__all__ = ["locked"]

_LOCK = "run.lock"
_HOLDER = "run.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder, which is made if there is none.

    The lock is the operating system's, so it goes with the process, however that ends.

    Args:
        folder (Path): The folder.

    Raises:
        RowError: If another run holds it, which is named, or the folder cannot be written.

    Examples::

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with locked(folder):
        ...     with locked(folder):
        ...         pass
        Traceback (most recent call last):
        benchmarks.errors.RowError: Another run is at work in ...: process ... Wait for it or ...
    """
    holder = folder / _HOLDER
    lock = FileLock(folder / _LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RowError(
            f"Another run is at work in {folder}: {_read(holder)}. Wait for it or stop it."
        ) from error
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        reason = getattr(error, "strerror", None) or error
        raise RowError(f"{folder} cannot be the folder of a run: {reason}.") from error
    try:
        # Not in the lock itself, which every attempt to get it may truncate.
        about = {
            "process": os.getpid(),
            "host": platform.node(),
            "since": datetime.now().astimezone().isoformat(" ", "seconds"),
        }
        write_atomically(holder, json.dumps(about).encode())
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _read(holder: Path) -> str:
    try:
        about = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {about['process']} on {about['host']}, since {about['since']}"
    except (OSError, ValueError, TypeError, KeyError):  # it has only just begun
        return "which one is not known yet"
