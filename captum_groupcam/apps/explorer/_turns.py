"""One computation at a time, and nobody waits for all that somebody else has asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from captum_groupcam.apps.explorer._visitors import Refused

__all__ = ["Turns"]


@dataclass(frozen=True)
class _Ticket:
    number: int
    address: str
    session: str

    @property
    def who(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The address, and the page at it: a page names itself, perhaps by another's address."""
        return (self.address,), (self.address, self.session)


class Turns:
    """Lets one computation run at a time: what hooks into a network must not meet other queries.

    Who waits is served in turn: of those who wait, the address that has been served least
    recently, of its pages the one that has been, and of that one's requests the first.

    Args:
        most (int, optional): How many may wait; each holds a thread. Default: 24.
        most_of_address (int, optional): How many of one address. Default: 12.
        most_of_session (int, optional): How many of one page. Default: 4.
    """

    def __init__(self, most: int = 24, most_of_address: int = 12, most_of_session: int = 4) -> None:
        self.most = most
        self.most_of_address = most_of_address
        self.most_of_session = most_of_session
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._busy = False
        self._numbers = count()
        self._served: dict[tuple[str, ...], int] = {}

    @contextmanager
    def take(
        self, address: str, session: str, check: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Waits for a turn, and keeps it while the context lasts.

        Args:
            address (str): Where the request comes from.
            session (str): The page that it comes from.
            check (Callable, optional): Called while it waits, once a second. What it raises ends
                the wait. Default: does nothing.

        Raises:
            Refused: If too many wait.
        """
        with self._changed:
            ticket = self._stand_in_line(address, session)
            try:
                while self._busy or self._next() != ticket:
                    check()
                    self._changed.wait(timeout=1)
                self._busy = True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._note(ticket)
                self._changed.notify_all()

    def look_again(self) -> None:
        """Lets those who wait call their ``check`` now."""
        with self._changed:
            self._changed.notify_all()

    def _stand_in_line(self, address: str, session: str) -> _Ticket:
        of_address = [ticket for ticket in self._waiting if ticket.address == address]
        of_session = [ticket for ticket in of_address if ticket.session == session]
        if (
            len(self._waiting) >= self.most
            or len(of_address) >= self.most_of_address
            or len(of_session) >= self.most_of_session
        ):
            raise Refused("Too many computations are waiting. Try again when some are done.", 503)
        ticket = _Ticket(next(self._numbers), address, session)
        self._waiting.append(ticket)
        return ticket

    def _next(self) -> _Ticket:
        def rank(ticket: _Ticket) -> tuple[int, int, int]:
            address, session = ticket.who
            return self._served.get(address, -1), self._served.get(session, -1), ticket.number

        return min(self._waiting, key=rank)

    def _note(self, ticket: _Ticket) -> None:
        """Notes who was served last; of those who do not wait, only a few are remembered."""
        if len(self._served) > 1000:
            waiting = {one for ticket in self._waiting for one in ticket.who}
            self._served = {one: at for one, at in self._served.items() if one in waiting}
        self._served |= dict.fromkeys(ticket.who, next(self._numbers))
