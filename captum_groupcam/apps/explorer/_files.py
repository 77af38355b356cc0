"""A folder for photographs that does not outlive its program, however that ends."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["remove_abandoned", "remove_old", "temporary_folder"]

_PREFIX = "captum_groupcam-explorer-"
_LOCK = ".lock"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Makes a folder that only this user can read, and removes it at the end.

    Beside it lies a lock, which the operating system releases with the process: what a process
    that was killed has left is known by that, and removed by the next one.

    Yields:
        Path: The folder.

    Examples::

        >>> with temporary_folder() as folder:
        ...     folder.is_dir()
        True
        >>> folder.exists()
        False
    """
    remove_abandoned()
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{secrets.token_hex(8)}"
    with _locked(folder):
        folder.mkdir(mode=0o700)
        yield folder


def remove_abandoned() -> None:
    """Removes the folders of processes that are no more."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*{_LOCK}"):
        if _is_mine(lock):
            # Held by a process that lives, or removed by another one at the same time.
            with suppress(Timeout, OSError), _locked(lock.with_suffix("")):
                pass


def remove_old(folder: Path, keep: Container[Path], seconds: float = 60) -> None:
    """Removes what was put into a folder a while ago.

    Args:
        folder (Path): The folder.
        keep (container of Path): What stays in it.
        seconds (float, optional): The while. Default: 60.
    """
    for path in folder.iterdir():
        # Another thread may have been faster.
        with suppress(OSError):
            if path not in keep and path.stat().st_mtime < time.time() - seconds:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, and removes both at the end."""
    lock = folder.with_name(folder.name + _LOCK)
    with FileLock(lock, timeout=0):
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                lock.unlink()


def _is_mine(path: Path) -> bool:
    """Whether it belongs to this user, and is not a link: the folder for it is everybody's."""
    if path.is_symlink():
        return False
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()
