"""Compiled networks: what has to run as it was written, since compiled code calls no hooks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

from captum_groupcam.threads import NOTED, surely

__all__ = ["eager", "on_one_device", "uncompiled"]

_Forward = Callable[..., Any]

#: torch has one stance for the whole process: the first that needs another sets it, and the last
#: puts it back, whatever the order in which threads end.
_STANCE = threading.RLock()
#: Who needs another, and in which thread.
_needed_by: dict[object, int] = {}
#: The stance to go back to, noted before there is another, so that no interrupt loses it.
_before: list[Any] = []


def _begin_anew() -> None:
    """A forked process has none of the threads that may need the stance."""
    global _STANCE
    _STANCE = threading.RLock()
    _needed_by.clear()
    _go_back()


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
    # Where nothing is compiled it is not needed, and its import would take seconds. It is there
    # since torch 2.6.
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    holder = object()

    try:
        with _STANCE:
            _needed_by[holder] = threading.get_ident()
            if not _before:
                _before.append(_eval_frame()._stance)
                torch.compiler.set_stance("force_eager")
        yield
    finally:
        surely(lambda: None, lambda: _done({holder}))


def _done(holders: set[object]) -> None:
    with _STANCE:
        for holder in holders:
            _needed_by.pop(holder, None)
        if not _needed_by:
            _go_back()


def _note() -> Callable[[], None]:
    """What ends the need of this thread that begins from here on, if an interrupt left it."""
    thread, before = threading.get_ident(), set(_needed_by)
    return lambda: _done({h for h, owner in list(_needed_by.items()) if owner == thread} - before)


NOTED.append(_note)


def _go_back() -> None:
    if _before:
        _eval_frame()._set_stance(_before[0])
        _before.clear()


def _eval_frame() -> Any:
    return import_module("torch._dynamo.eval_frame")
