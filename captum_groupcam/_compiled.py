"""Compiled networks: what has to run as it was written, since compiled code calls no hooks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from captum_groupcam.threads import surely

__all__ = ["eager", "on_one_device", "uncompiled"]

_Forward = Callable[..., Any]

#: torch has one stance for the whole process: the first that needs another sets it, and the last
#: puts it back, whatever the order in which threads end.
_STANCE = threading.RLock()
_needed_by: set[object] = set()
_set_by_us: list[Any] = []


def _begin_anew() -> None:
    """A forked process has none of the threads that may need the stance."""
    global _STANCE
    _STANCE = threading.RLock()
    _needed_by.clear()
    while _set_by_us:
        _set_by_us.pop().__exit__(None, None, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def eager(forward_func: _Forward) -> _Forward:
    """The module behind ``torch.compile``."""
    written: _Forward = getattr(forward_func, "_orig_mod", forward_func)
    return written


def on_one_device(forward_func: _Forward) -> _Forward:
    """The module as written, without ``DataParallel``, whose replicas each see some rows."""
    network = eager(forward_func)
    return network.module if isinstance(network, torch.nn.DataParallel) else network


@contextmanager
def uncompiled() -> Iterator[None]:
    """Runs what is compiled inside the forward function as it was written."""
    set_stance: Any = getattr(torch.compiler, "set_stance", None)  # since torch 2.6
    # Where nothing is compiled it is not needed, and its import would take seconds.
    if set_stance is None or "torch._dynamo" not in sys.modules:
        yield
        return
    holder = object()

    def put_back() -> None:
        with _STANCE:
            _needed_by.discard(holder)
            while _set_by_us and not _needed_by:
                _set_by_us[-1].__exit__(None, None, None)
                _set_by_us.pop()

    try:
        with _STANCE:
            _needed_by.add(holder)
            if not _set_by_us:
                _set_by_us.append(set_stance("force_eager"))
        yield
    finally:
        surely(lambda: None, put_back)
