"""Who has the page open: what is kept for each, how many there may be, and when it is dropped."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from captum_groupcam.apps.explorer._questions import Explanation, Stopped, View

__all__ = ["Allowance", "Refused", "Visitor", "Visitors"]

#: Seconds without a request after which what belongs to a page is dropped.
KEPT = 3600
#: Seconds after which a page that is not connected counts as closed: it may have just been opened,
#: or lost its connection for a moment.
GRACE = 5
#: Files of one kind that a page has at most: a browser may still be reading the last but one.
_FILES = 3


class Refused(Exception):  # noqa: N818  the program works, the request does not
    """A request that is not answered; the message says why.

    Attributes:
        status (int): The HTTP status that says the same.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(eq=False)
class Visitor:
    """A page that somebody has open.

    Attributes:
        address (str): Where it is open.
        folder (Path): For its files; made with the first.
        view (View or None): The photo on it.
        target (int or None): The class to choose for the first photo, which a link can name.
        answers (tuple of Explanation): The maps on it.
        connections (int): Responses that it is still reading.
        last_seen (float): When it last asked for something or was connected, by the clock.
        is_forgotten (bool): Whether it is none any more, so that no file is written for it.
        stopped (threading.Event): Set when nothing is to be computed for it any more; a new one
            takes its place.
    """

    address: str
    folder: Path
    view: View | None = None
    target: int | None = None
    answers: tuple[Explanation, ...] = ()
    connections: int = 0
    last_seen: float = 0
    is_forgotten: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)
    _files: defaultdict[str, deque[Path]] = field(default_factory=lambda: defaultdict(deque))

    def stop(self) -> None:
        """Ends what is computed for it, before the network's next forward pass."""
        self.stopped.set()
        self.stopped = threading.Event()

    def new_file(self, kind: str, name: str) -> Path:
        """Makes place for a file that the page shows, in place of older ones of its kind.

        Args:
            kind (str): What it shows.
            name (str): Its name.

        Returns:
            Path: Where it is to be written.
        """
        files = self._files[kind]
        files.append(self._new_folder(kind))
        path = files[-1] / name
        while len(files) > _FILES:
            shutil.rmtree(files.popleft(), ignore_errors=True)
        return path

    def copy(self, upload: Path) -> Path:
        """Copies an uploaded file; it is not moved, as others may have uploaded the same.

        Args:
            upload (Path): The file.

        Returns:
            Path: The copy, in a folder of its own.

        Raises:
            OSError: If the file is not there.
        """
        return Path(shutil.copyfile(upload, self._new_folder("photo") / f"photo{upload.suffix}"))

    def show(self, view: View) -> None:
        """Takes a photo in place of the one before it, whose file is removed."""
        before = self.view
        self.view, self.answers = view, ()
        if before is not None and before.photo is not view.photo:
            before.photo.remove()

    def _new_folder(self, kind: str) -> Path:
        if self.is_forgotten:
            raise Stopped("This page has expired.")
        place = self.folder / kind / secrets.token_hex(8)
        place.mkdir(parents=True)
        return place


class Allowance:
    """How much of something each address may ask for in a while.

    Args:
        amount (float): So much.
        seconds (float, optional): In so many seconds. Default: 60.
        clock (Callable, optional): Gives seconds. Default: a clock that never goes back.

    Examples::

        >>> pages = Allowance(2)
        >>> [pages.spend("192.168.1.7", 1) for _ in range(3)]
        [True, True, False]
    """

    def __init__(
        self, amount: float, seconds: float = 60, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.amount = amount
        self.seconds = seconds
        self.clock = clock
        self._spent: defaultdict[str, deque[tuple[float, float]]] = defaultdict(deque)

    def spend(self, address: str, amount: float) -> bool:
        """Takes an amount off, if so much is left."""
        now = self.clock()
        for known in list(self._spent):
            spent = self._spent[known]
            while spent and spent[0][0] <= now - self.seconds:
                spent.popleft()
            if not spent:
                del self._spent[known]
        if sum(part for _, part in self._spent[address]) + amount > self.amount:
            return False
        self._spent[address].append((now, amount))
        return True


class Visitors:
    """The pages that are open. There are so many at most, so that what is kept fits into memory.

    One more than that takes the place of a page that is closed. Where none is, it is refused, and
    those that are open go on.

    Args:
        folder (Path): Where their files go.
        most (int, optional): How many pages there may be. Default: 64.
        most_of_address (int, optional): How many at one address. Default: 16.
        new (Allowance, optional): How many an address may open in a while. Default: 60 a minute.
        clock (Callable, optional): Gives seconds. Default: a clock that never goes back.
        on_forget (Callable, optional): Called with each page that is dropped.
    """

    def __init__(
        self,
        folder: Path,
        most: int = 64,
        most_of_address: int = 16,
        new: Allowance | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_forget: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        self.most = most
        self.most_of_address = most_of_address
        self.new = Allowance(60, clock=clock) if new is None else new
        self.clock = clock
        self.on_forget = on_forget
        self._lock = threading.RLock()
        self._visitors: dict[str, Visitor] = {}

    def __len__(self) -> int:
        return len(self._visitors)

    def __getitem__(self, session: str) -> Visitor:
        """The visitor who has a page open.

        Raises:
            Refused: If the page is not, or no longer, known.
        """
        try:
            return self._visitors[session]
        except KeyError:
            raise Refused("This page has expired. Load it again.", 410) from None

    def admit(self, session: str, address: str) -> Visitor:
        """Lets a page ask for something.

        Args:
            session (str): The page.
            address (str): Where it is open.

        Returns:
            Visitor: What is kept for it.

        Raises:
            Refused: If there are too many.
        """
        with self._lock:
            visitor = self._visitors.get(session)
            if visitor is None:
                self._make_room(address)
                folder = self.folder / secrets.token_hex(16)
                visitor = self._visitors[session] = Visitor(address, folder)
            visitor.last_seen = self.clock()
            return visitor

    @contextmanager
    def connected(self, session: str, address: str) -> Iterator[Visitor]:
        """Notes that a page is there, while the context lasts; admits it."""
        visitor = self.admit(session, address)
        with self._lock:
            visitor.connections += 1
        try:
            yield visitor
        finally:
            with self._lock:
                visitor.connections -= 1
                visitor.last_seen = self.clock()

    def is_there(self, visitor: Visitor) -> bool:
        """Whether a page is open, as far as can be seen."""
        return visitor.connections > 0 or self.clock() - visitor.last_seen <= GRACE

    def forget(self, session: str) -> None:
        """Drops all that belongs to a page."""
        with self._lock:
            visitor = self._visitors.pop(session, None)
        if visitor is not None:
            visitor.is_forgotten = True
            visitor.stop()
            shutil.rmtree(visitor.folder, ignore_errors=True)
            self.on_forget(session)

    def sweep(self) -> None:
        """Drops the pages that have asked for nothing for long, open or not."""
        with self._lock:
            for session, visitor in list(self._visitors.items()):
                if self.clock() - visitor.last_seen > KEPT:
                    self.forget(session)

    def close(self) -> None:
        """Drops all pages, so that nothing more is computed or written."""
        with self._lock:
            for session in list(self._visitors):
                self.forget(session)

    def _make_room(self, address: str) -> None:
        of_address = [s for s, visitor in self._visitors.items() if visitor.address == address]
        if len(of_address) >= self.most_of_address:
            self._drop_one(of_address, "Too many pages are open at your address: close one.")
        elif len(self._visitors) >= self.most:
            self._drop_one(list(self._visitors), "Too many pages are open. Try again later.")
        if not self.new.spend(address, 1):
            raise Refused("Too many pages were opened at your address. Wait for a minute.", 429)

    def _drop_one(self, sessions: list[str], message: str) -> None:
        closed = [session for session in sessions if not self.is_there(self._visitors[session])]
        if not closed:
            raise Refused(message, 429)
        self.forget(min(closed, key=lambda session: self._visitors[session].last_seen))
