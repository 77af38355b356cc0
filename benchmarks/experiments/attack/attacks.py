"""What an attack is, and how its result is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Attack", "NotTried", "Outcome", "added"]


class NotTried(Exception):  # noqa: N818  nothing has failed
    """What an attack needs is missing; the message says what."""


@dataclass(frozen=True)
class Outcome:
    """What came of an attack.

    Args:
        tried (int): How many times something was tried.
        faults (mapping of str to int): What must not happen, and how often it did.
        details (sequence of str, optional): What happened there. Default: none.

    Examples::

        >>> Outcome(20, {"rows lost": 0, "rows doubled": 0}).withstood
        True
    """

    tried: int
    faults: Mapping[str, int]
    details: Sequence[str] = ()

    @property
    def withstood(self) -> bool:
        """Whether nothing happened that must not."""
        return not any(self.faults.values())


@dataclass(frozen=True)
class Attack:
    """Something that must do no harm.

    Args:
        name (str): What is done.
        theme (str): What it is done to.
        run (callable): Does it: takes an empty folder to work in and whether a small number of
            tries is enough, and returns an :class:`Outcome`.
    """

    name: str
    theme: str
    run: Callable[[Path, bool], Outcome]


def added(outcomes: Sequence[Outcome]) -> Outcome:
    """Several outcomes as one.

    Examples::

        >>> added([Outcome(1, {"ended": 0}), Outcome(1, {"ended": 1}, ["an end"])])
        Outcome(tried=2, faults={'ended': 1}, details=('an end',))
    """
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.faults)
    return Outcome(
        sum(outcome.tried for outcome in outcomes),
        {name: sum(outcome.faults.get(name, 0) for outcome in outcomes) for name in names},
        tuple(detail for outcome in outcomes for detail in outcome.details),
    )
