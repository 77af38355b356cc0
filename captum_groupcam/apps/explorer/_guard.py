"""What is asked of the explorer's server before Gradio gets to see it."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from captum_groupcam.apps.explorer._visitors import Allowance, Refused, Visitors

if TYPE_CHECKING:
    from starlette.middleware import Middleware
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MAX_FILE_SIZE", "Guard", "Hosts", "guarded_by"]

#: The largest file that can be uploaded, in bytes.
MAX_FILE_SIZE = 20 * 2**20
#: Bytes that an address may upload in a minute.
MAX_UPLOADS = 100 * 2**20
#: Bytes of what a page sends apart from files; of a form it is a thousandth.
MAX_FORM_SIZE = 2**20
#: Requests of one address at a time: each open page holds two, and a few when it loads.
MAX_REQUESTS = 200

_NO_SUCH_THING = "The page asks for no such thing."
# What the page asks of Gradio. The other ways in are for programs, which have a better one: Python.
_API = "/gradio_api/"
_HEARTBEAT = f"{_API}heartbeat/"
_ANSWERS = f"{_API}queue/data"
_UPLOAD = f"{_API}upload"
#: It is told of what was stopped, and does nothing.
_RESET = f"{_API}reset"
_FORMS = (f"{_API}queue/join", f"{_API}run/predict", f"{_API}cancel")
_READ = (_HEARTBEAT, _ANSWERS, f"{_UPLOAD}_progress", f"{_API}file=", f"{_API}startup-events")


class Hosts:
    """The names that the server answers to.

    A page of somebody else's can let its own name lead to this computer (DNS rebinding), and would
    then be taken for ours; but it cannot do so under one of these names.

    Args:
        host (str): What the server listens on.
        others (sequence of str, optional): More names that lead to it. Default: none.

    Examples::

        >>> "localhost:7860" in Hosts("127.0.0.1")
        True
        >>> "example.org" in Hosts("127.0.0.1")
        False
    """

    def __init__(self, host: str, others: Iterable[str] = ()) -> None:
        self.others = {other.lower() for other in others}
        self.is_local = _is_loopback(host) or host == "localhost"
        self.names = {host.strip("[]").lower(), "localhost", *self.others}
        if not self.is_local:
            self.names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def __contains__(self, given: str) -> bool:
        name = _name_of(given)
        if name in self.names:
            return True
        # A number is not a name that could lead elsewhere first.
        return _is_loopback(name) or (not self.is_local and _is_address(name))

    def check(self, host: str, origin: str | None) -> None:
        """Checks what a request says of where it goes, and of the page that it comes from.

        Args:
            host (str): Its header Host.
            origin (str or None): Its header Origin, if it has one.

        Raises:
            Refused: If one of them is foreign.
        """
        if host not in self:
            name = _name_of(host)
            raise Refused(
                f"The explorer does not answer to the name {name!r}. If it is yours, start it with "
                f"--allow-host {name}.",
                403,
            )
        if origin is not None:
            place = origin.partition("://")[2]
            if place != host and _name_of(place) not in self.others:
                raise Refused("Only the explorer's own page may ask it.", 403)


class Guard:
    """ASGI middleware: lets through what the page asks for, within limits.

    Args:
        app (ASGIApp): What it guards.
        visitors (Visitors): Who has the page open.
        hosts (Hosts): The names that the server answers to.
        uploads (Allowance, optional): Bytes that an address may upload. Default:
            :data:`MAX_UPLOADS` in a minute.
    """

    def __init__(
        self, app: ASGIApp, visitors: Visitors, hosts: Hosts, uploads: Allowance | None = None
    ) -> None:
        self.app = app
        self.visitors = visitors
        self.hosts = hosts
        self.uploads = Allowance(MAX_UPLOADS) if uploads is None else uploads
        self._requests: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        from starlette.responses import JSONResponse, PlainTextResponse

        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if [name for name, _ in scope["headers"]].count(b"host") != 1:
            headers[b"host"] = ""  # which of two is meant cannot be known
        address = scope["client"][0] if scope.get("client") else ""
        started = False

        async def note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            self.hosts.check(headers.get(b"host", ""), headers.get(b"origin"))
            with self._one_more(address):
                if scope["method"] == "POST":
                    receive = await self._posted(scope["path"], headers, address, receive)
                elif scope["path"].startswith(_API) and not scope["path"].startswith(_READ):
                    raise Refused(_NO_SUCH_THING, 404)
                with self._reading(scope, address):
                    await self.app(scope, receive, note)
        except Refused as refused:
            if started:
                raise
            form = scope["path"] in _FORMS  # its sender shows what "detail" says
            response = (
                JSONResponse({"detail": str(refused)}, refused.status)
                if form
                else PlainTextResponse(str(refused), refused.status)
            )
            await response(scope, receive, send)

    @contextmanager
    def _one_more(self, address: str) -> Iterator[None]:
        if self._requests[address] >= MAX_REQUESTS:
            raise Refused("Too many requests of your address are being answered.", 429)
        self._requests[address] += 1
        try:
            yield
        finally:
            self._requests[address] -= 1
            self._requests += Counter()  # drops what is at zero

    async def _posted(
        self, path: str, headers: dict[bytes, str], address: str, receive: Receive
    ) -> Receive:
        """Checks what is sent, and gives what will be read of it."""
        if path not in (_UPLOAD, _RESET, *_FORMS):
            raise Refused(_NO_SUCH_THING, 404)
        length = headers.get(b"content-length", "")
        if not length.isdecimal():
            raise Refused("Say how long it is.", 411)
        # Around a file there are a few lines that say what it is.
        most = MAX_FILE_SIZE + 2**12 if path == _UPLOAD else MAX_FORM_SIZE
        if int(length) > most:
            raise Refused(f"Too large: {int(length)} bytes, more than the limit of {most}.", 413)
        if path == _UPLOAD:
            if not self.uploads.spend(address, int(length)):
                raise Refused("Too much was uploaded. Wait for a minute.", 429)
            return receive
        body = await _read(receive)
        if path != _RESET:
            self.visitors.admit(_session_of(body), address)
        return _again(body, receive)

    def _reading(self, scope: Scope, address: str) -> AbstractContextManager[Any]:
        """Notes that a page is there while it reads what is streamed to it."""
        path = scope["path"]
        if path.startswith(_HEARTBEAT):
            session = path.removeprefix(_HEARTBEAT)
        elif path == _ANSWERS:
            (session,) = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])
        else:
            return nullcontext()
        return self.visitors.connected(_session(session), address)


def guarded_by(visitors: Visitors, hosts: Hosts) -> Middleware:
    """The guard, as an application takes it."""
    from starlette.middleware import Middleware

    return Middleware(Guard, visitors, hosts)


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives what has been read once more, and then what follows."""
    read = False

    async def again() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _session_of(body: bytes) -> str:
    """The page that a form comes from.

    Raises:
        Refused: If it is not a form, or names a file elsewhere, which Gradio would download.
    """

    def no_address(found: dict[str, Any]) -> dict[str, Any]:
        if "://" in str(found.get("path")):
            raise Refused("Files are uploaded, not downloaded.", 400)
        return found

    try:
        return _session(json.loads(body, object_hook=no_address)["session_hash"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refused("This is not a form of the page.", 400) from error


def _session(given: Any) -> str:
    """A page's name for itself.

    Raises:
        Refused: If it is none.
    """
    if not isinstance(given, str) or not 0 < len(given) <= 64:
        raise Refused("This does not say which page it is for.", 400)
    return given


def _name_of(place: str) -> str:
    """A host's name or number, without its port; "" if there is none."""
    try:
        return (urlsplit(f"//{place}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ip_address(name).is_loopback
