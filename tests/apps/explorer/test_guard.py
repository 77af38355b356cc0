from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from captum_groupcam.apps.explorer._guard import (
    MAX_FILE_SIZE,
    MAX_FORM_SIZE,
    MAX_REQUESTS,
    Guard,
    Hosts,
)
from captum_groupcam.apps.explorer._visitors import Allowance, Visitors

pytest.importorskip("starlette", reason="comes with gradio")

JOIN = "/gradio_api/queue/join"
UPLOAD = "/gradio_api/upload"


class Asked:
    """Behind the guard: notes what it gets to see, and answers when it may."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.meanwhile: Callable[[], Any] = lambda: None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        if scope["method"] == "POST":
            message = await receive()
            body = message["body"]
            assert not message["more_body"]
        self.seen.append((scope["path"], body))
        self.meanwhile()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def visitors(tmp_path: Path) -> Visitors:
    return Visitors(tmp_path, most=6, most_of_address=4)


@pytest.fixture
def guard(asked: Asked, visitors: Visitors) -> Guard:
    return Guard(asked, visitors, Hosts("127.0.0.1"), Allowance(3 * MAX_FILE_SIZE))


def ask(
    guard: Guard,
    path: str = "/",
    body: bytes | None = None,
    address: str = "127.0.0.1",
    query: str = "",
    **headers: str,
) -> tuple[int, str]:
    """The status and the text of the answer to a request."""
    given = {"host": "127.0.0.1:7860", **headers}
    if body is not None:
        given = {"content-length": str(len(body)), **given}
    scope = {
        "type": "http",
        "method": "GET" if body is None else "POST",
        "path": path,
        "query_string": query.encode(),
        "client": (address, 50_000),
        "headers": [(name.replace("_", "-").encode(), v.encode()) for name, v in given.items()],
    }
    # As it comes over the network, in pieces.
    middle = len(body or b"") // 2
    parts = [(body or b"")[:middle], (body or b"")[middle:]]
    messages = [
        {"type": "http.request", "body": parts[0], "more_body": True},
        {"type": "http.request", "body": parts[1], "more_body": False},
    ]
    if path == UPLOAD or body is None:
        messages = [{"type": "http.request", "body": body or b"", "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    anyio.run(guard, scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


def form(session: Any = "a", **others: Any) -> bytes:
    return json.dumps({"session_hash": session, "fn_index": 1, "data": [], **others}).encode()


@pytest.mark.parametrize(
    ("listens", "given", "answers"),
    [
        ("127.0.0.1", "127.0.0.1:7860", True),
        ("127.0.0.1", "localhost:7860", True),
        ("127.0.0.1", "LOCALHOST", True),
        ("127.0.0.1", "localhost.:7860", True),
        ("127.0.0.1", "[::1]:7860", True),
        ("127.0.0.1", "example.org:7860", False),
        ("127.0.0.1", "127.0.0.1.example.org", False),
        ("127.0.0.1", "localhost.example.org", False),
        ("127.0.0.1", "192.168.1.7:7860", False),
        ("127.0.0.1", "localhost@example.org", False),
        ("127.0.0.1", "[::1", False),
        ("127.0.0.1", "", False),
        ("0.0.0.0", "192.168.1.7:7860", True),
        ("0.0.0.0", "[fe80::1]:7860", True),
        ("0.0.0.0", socket.gethostname(), True),
        ("0.0.0.0", "example.org", False),
        ("lab.example.org", "lab.example.org:7860", True),
        ("lab.example.org", "example.org", False),
    ],
)
def test_names_that_it_answers_to(listens: str, given: str, answers: bool) -> None:
    assert (given in Hosts(listens)) is answers


def test_a_foreign_host_is_refused(guard: Guard, asked: Asked) -> None:
    status, said = ask(guard, host="example.org:7860")
    assert status == 403
    assert "start it with --allow-host example.org" in said
    assert asked.seen == []
    assert ask(guard) == (200, "fine")
    guard.hosts = Hosts("127.0.0.1", ["Example.org"])
    assert ask(guard, host="example.org:7860") == (200, "fine")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:7860", 200),
        ("http://127.0.0.1:3000", 403),
        ("http://example.org", 403),
        ("null", 403),
    ],
)
def test_another_page_cannot_ask_it(guard: Guard, origin: str, status: int) -> None:
    assert ask(guard, JOIN, form(), origin=origin)[0] == status
    guard.hosts = Hosts("127.0.0.1", ["proxy.example.org"])
    assert ask(guard, JOIN, form(), origin="https://proxy.example.org")[0] == 200


def test_a_form_passes_as_it_was(guard: Guard, asked: Asked, visitors: Visitors) -> None:
    body = form("a", data=["\N{SNOWMAN}" * 1000])
    assert ask(guard, JOIN, body, address="192.168.1.7") == (200, "fine")
    assert asked.seen == [(JOIN, body)]
    assert visitors["a"].address == "192.168.1.7"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "not a form"),
        (b"[]", "not a form"),
        (b"\xff", "not a form"),
        (b"[" * 100_000, "not a form"),
        (b'{"data": []}', "not a form"),
        (form(None), "which page"),
        (form(["a"]), "which page"),
        (form(""), "which page"),
        (form("a" * 65), "which page"),
        (form(data=[{"path": "http://example.org/"}]), "not downloaded"),
        (form(data=[[{"value": {"path": "HTTPS://example.org/"}}]]), "not downloaded"),
    ],
)
def test_what_is_no_form_is_refused(guard: Guard, asked: Asked, body: bytes, why: str) -> None:
    status, said = ask(guard, JOIN, body)
    assert status == 400
    assert why in json.loads(said)["detail"]
    assert asked.seen == []


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/call/explain", "/gradio_api/api/predict", "/login", "/gradio_api/x/upload"],
)
def test_what_the_page_does_not_ask_for(guard: Guard, path: str) -> None:
    assert ask(guard, path, form()) == (404, "The page asks for no such thing.")


@pytest.mark.parametrize("path", ["deep_link", "info", "call/explain/1", "proxy=http://x", "runs"])
def test_what_the_page_does_not_read(guard: Guard, path: str) -> None:
    assert ask(guard, f"/gradio_api/{path}") == (404, "The page asks for no such thing.")


def test_what_is_stopped_names_no_page(guard: Guard) -> None:
    assert ask(guard, "/gradio_api/reset", b'{"event_id": "1"}') == (200, "fine")


def test_sizes(guard: Guard, asked: Asked) -> None:
    assert ask(guard, JOIN, form(), content_length=str(MAX_FORM_SIZE + 1))[0] == 413
    assert ask(guard, UPLOAD, b"", content_length=str(MAX_FILE_SIZE + 2**13))[0] == 413
    assert ask(guard, UPLOAD, b"", content_length="-1")[0] == 411
    assert ask(guard, UPLOAD, b"", content_length="")[0] == 411
    assert asked.seen == []
    for _ in range(3):
        assert ask(guard, UPLOAD, b"", content_length=str(MAX_FILE_SIZE))[0] == 200
    status, said = ask(guard, UPLOAD, b"", content_length="1")
    assert (status, said) == (429, "Too much was uploaded. Wait for a minute.")
    assert ask(guard, UPLOAD, b"", address="192.168.1.7", content_length="1")[0] == 200


def test_too_many_pages_are_refused_with_a_message(guard: Guard, visitors: Visitors) -> None:
    for session in "abcd":
        assert ask(guard, JOIN, form(session))[0] == 200
    status, said = ask(guard, JOIN, form("e"))
    assert status == 429
    assert "close one" in json.loads(said)["detail"]
    assert ask(guard, JOIN, form("e"), address="192.168.1.7")[0] == 200
    assert len(visitors) == 5


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/gradio_api/heartbeat/a", ""),
        ("/gradio_api/queue/data", "session_hash=a"),
        ("/gradio_api/queue/data", "x=1&session_hash=a"),
    ],
)
def test_a_page_is_there_while_it_reads(
    guard: Guard, asked: Asked, visitors: Visitors, path: str, query: str
) -> None:
    connections: list[int] = []
    asked.meanwhile = lambda: connections.append(visitors["a"].connections)
    assert ask(guard, path, query=query) == (200, "fine")
    assert connections == [1]
    assert visitors["a"].connections == 0


def test_a_connection_without_a_page_is_refused(guard: Guard, asked: Asked) -> None:
    assert ask(guard, "/gradio_api/queue/data")[0] == 400
    assert ask(guard, f"/gradio_api/heartbeat/{'a' * 65}")[0] == 400
    assert asked.seen == []


def test_requests_at_a_time(guard: Guard, asked: Asked) -> None:
    answers: list[int] = []

    async def all_at_once() -> None:
        event = anyio.Event()

        async def wait(scope: Any, receive: Any, send: Any) -> None:
            await event.wait()

        guard.app = wait

        async def one(address: str) -> None:
            async def send(message: Any) -> None:
                answers.extend([message["status"]] if "status" in message else [])
                event.set()

            scope = {
                "type": "http",
                "method": "GET",
                "path": "/",
                "query_string": b"",
                "client": (address, 1),
                "headers": [(b"host", b"localhost")],
            }
            await guard(scope, None, send)  # type: ignore[arg-type]

        async with anyio.create_task_group() as group:
            for _ in range(MAX_REQUESTS + 3):
                group.start_soon(one, "127.0.0.1")
            group.start_soon(one, "192.168.1.7")

    anyio.run(all_at_once)
    assert answers == [429] * 3
    guard.app = asked
    assert ask(guard) == (200, "fine")
