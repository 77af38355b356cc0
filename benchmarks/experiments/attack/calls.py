"""Wrong calls of the library: each is an error that the library raises, and says why, in time."""

from __future__ import annotations

import linecache
import signal
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import NoReturn

from .attacks import Attack, Outcome
from .wrong_calls import wrong_calls
from .wrong_values import Call

__all__ = ["ATTACKS", "judged"]

#: Seconds of computing that a wrong call may take.
_LIMIT = 10


def judged(call: Call) -> str | None:
    """What is wrong with the answer to a wrong call: None, "silent", "unclear" or "hung".

    An error is clear if it is a TypeError or a ValueError that the library itself raises, with a
    message; or Python's own of a keyword that there is not.

    Args:
        call (Callable): The call.

    Returns:
        str or None: The fault, and what was said.
    """
    begin = time.process_time()
    try:
        with _limited():
            call()
    except TimeoutError:
        return "hung"
    except Exception as error:
        if time.process_time() - begin > _LIMIT:
            return "hung"
        frame = traceback.extract_tb(error.__traceback__)[-1]
        line = linecache.getline(frame.filename, frame.lineno or 0).strip()
        ours = "captum_groupcam" in frame.filename and line.startswith("raise")
        keyword = "unexpected keyword argument" in str(error)
        clear = isinstance(error, (TypeError, ValueError)) and len(str(error)) > 20
        if clear and (ours or keyword):
            return None
        return f"unclear: {type(error).__name__}: {str(error)[:200]} ({frame.name})"
    return "silent"


class _limited:  # noqa: N801 (a context manager)
    """Ends what computes for too long, in the main thread of systems with such alarms."""

    def __enter__(self) -> None:
        self._armed = (
            hasattr(signal, "SIGPROF") and threading.current_thread() is threading.main_thread()
        )
        if self._armed:
            self._before = signal.signal(signal.SIGPROF, self._end)
            signal.setitimer(signal.ITIMER_PROF, _LIMIT)

    def __exit__(self, *_: object) -> None:
        if self._armed:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, self._before)

    @staticmethod
    def _end(*_: object) -> NoReturn:
        raise TimeoutError


def _calls(_folder: Path, small: bool) -> Outcome:
    """Makes all wrong calls, or every seventh."""
    faults = {"silent": 0, "unclear": 0, "hung": 0}
    details = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calls = list(wrong_calls().items())[:: 7 if small else 1]
        for name, call in calls:
            fault = judged(call)
            if fault is not None:
                faults[fault.partition(":")[0]] += 1
                details.append(f"{name}: {fault}")
    return Outcome(len(calls), faults, details)


ATTACKS: tuple[Attack, ...] = (Attack("wrong calls", "calls", _calls),)
