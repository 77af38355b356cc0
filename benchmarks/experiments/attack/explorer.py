"""Uploads and requests to the explorer: refused or bounded, and nothing of them is left."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from .attacks import Attack, Outcome, added
from .files import odd_pictures, saved
from .pages import JSON, Page, Server, serving

__all__ = ["ATTACKS"]

#: Pixels along each side of a photograph, which takes 125 MB when it is decoded.
_SIDE = 5600
#: MB by which uploads of such photographs may make the explorer larger: decoding one takes 250,
#: which the allocator may keep for the next. Eight pages or threads that kept theirs take more.
_LIMIT = 400
#: Pages that upload them at the same time.
_PAGES = 8


def _answered(server: Server, page: Page, photo: Path) -> Iterator[tuple[str, bool]]:
    """Requests that must be refused, and whether they were answered."""
    (upload,) = json.loads(server.upload("a.png", saved(Image.new("RGB", (32, 32)), "PNG"))[1])
    outside = str(photo)
    for path in (
        f"/gradio_api/file={outside}",
        f"/gradio_api/file={upload}/../../../{photo.name}",
        f"/gradio_api/file=//{outside}",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=C:\\Windows\\win.ini",
        "/gradio_api/file=%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/info",
        "/gradio_api/call/explain/1",
        "/gradio_api/queue/data",
        f"/gradio_api/queue/data?session_hash={'a' * 65}",
        "/static/../../../etc/passwd",
        "/assets/..%2f..%2f..%2fetc%2fpasswd",
    ):
        yield path, server.ask(path)[0] == 200
    for host in ("example.org", "localhost.example.org", "169.254.169.254", "127.0.0.1@x.org", ""):
        yield f"Host {host}", server.ask("/", headers={"Host": host})[0] == 200
    form = page.form("explain", page.question())
    for origin in ("http://example.org", "null", "http://127.0.0.1:1"):
        status, _ = server.ask("/gradio_api/queue/join", form, {**JSON, "Origin": origin})
        yield f"Origin {origin}", status == 200
    for name, body in {
        "no form": b"{",
        "a list": b"[]",
        "deep": b"[" * 100_000,
        "no page": b'{"data": [], "fn_index": 1}',
        "a long name": b'{"data": [], "fn_index": 1, "session_hash": "%s"}' % (b"a" * 1000),
        "2 MB": b" " * 2**21,
    }.items():
        yield f"form: {name}", server.ask("/gradio_api/queue/join", body, JSON)[0] == 200
    for path in ("/gradio_api/call/explain", "/gradio_api/api/explain", "/login", "/"):
        yield f"POST {path}", server.ask(path, form, JSON)[0] == 200
    yield "a file of 21 MB", server.upload("large.png", bytes(21 * 2**20))[0] == 200
    for path in (outside, "/etc/passwd", f"{upload}/../../../{photo.name}", "http://127.0.0.1:1/"):
        yield f"opening {path}", page.asks("open_file", page.file(path, "a.png"))


#: Values that no control of the page gives.
_VALUES: tuple[dict[str, Any], ...] = (
    *(
        {"first_method": method, f"first_{method}_{option}": value}
        for method, option in (("rise", "n_masks"), ("group_cam", "n_groups"))
        for value in (10**10, 10**400, -1, 0, 1.5, "many", None, [1])
    ),
    {"first_method": "nope"},
    {"first_method": "os:system"},
    {"first_method": ["grad_cam"]},
    {"layer": "nope"},
    {"target": 5},
    {"target": -1},
    {"target": 10**30},
    {"target": "1"},
    {"model": "os:system"},
    {"model": "../../etc/passwd"},
)


def _requests(server: Server, photo: Path, small: bool) -> Outcome:
    """What is no request of the page's; afterwards it answers one."""
    page = Page(server, "a")
    answered = []
    tried = 0
    for name, was in _answered(server, page, photo):
        tried += 1
        answered += [f"answered: {name}"] * was
    page.opens("good.png", saved(Image.new("RGB", (64, 48), "red"), "PNG"))
    for values in _VALUES[:: 4 if small else 1]:
        tried += 1
        answered += [f"answered: {values}"] * page.explains(**values)
    ended = [] if page.explains() else ["a good request was refused after the others"]
    faults = {"requests answered": len(answered), "good ones refused": len(ended)}
    return Outcome(tried + 1, faults, (*answered, *ended))


def _odd_uploads(server: Server, small: bool) -> Outcome:
    """Odd pictures and names: some are shown, others refused; a good one is shown after each."""
    page = Page(server, "b")
    files = odd_pictures(small)
    must_not = ("long.png", "high.png", "too large.png", "empty.png", "text.jpg")
    wrong = []
    for name, content in files.items():
        shown = page.opens(name.replace('"', "").replace("\n", ""), content)
        wrong += [f"answered: {name}"] * (shown and name in must_not)
    good = page.opens("good.png", saved(Image.new("RGB", (64, 48), "red"), "PNG"))
    ended = [] if good else ["a good upload was refused after the odd ones"]
    faults = {"requests answered": len(wrong), "good ones refused": len(ended)}
    return Outcome(len(files) + 1, faults, (*wrong, *ended))


def _memory(server: Server, small: bool) -> Outcome:
    """Large photographs on several pages at the same time: the explorer hardly grows."""
    count = 16 if small else 50
    pages = [Page(server, f"page-{number}") for number in range(_PAGES)]
    large = saved(Image.new("RGB", (_SIDE, _SIDE), "red"), "PNG")

    def uploads(page: int) -> list[str]:
        """What one page uploads, and what was refused of it."""
        names = [f"{number}.png" for number in range(page, count, _PAGES)]
        return [name for name in names if not pages[page].opens(name, large)]

    before = server.memory()
    with ThreadPoolExecutor(_PAGES) as visitors:
        refused = [name for names in visitors.map(uploads, range(_PAGES)) for name in names]
    after = server.memory()
    beyond = 0 if before is None or after is None else max(0, round(after - before) - _LIMIT)
    details = [f"the explorer grew from {before:.0f} to {after:.0f} MB"] if beyond else []
    faults = {f"MB kept beyond {_LIMIT}": beyond, "good ones refused": len(refused)}
    return Outcome(count, faults, (*details, *(f"{name} was refused" for name in refused)))


def _abandoned(server: Server) -> Outcome:
    """A page asks for what takes minutes, and is closed: another one gets its map meanwhile."""
    greedy, modest = Page(server, "greedy"), Page(server, "modest")
    photo = saved(Image.new("RGB", (64, 48), "red"), "PNG")
    for page in (greedy, modest):
        page.opens("good.png", photo)
    question = greedy.question(first_method="rise", first_rise_n_masks=20_000)
    greedy.join("explain", question)
    with greedy.answers() as answers:
        begun = any(message["msg"] == "progress" for message in answers)
    try:
        wrong = [] if begun and modest.explains() else ["the other page got no map"]
    except TimeoutError:
        wrong = ["the other page waited for too long"]
    return Outcome(1, {"visitors blocked": len(wrong)}, wrong)


def _left(temporary: Path) -> list[str]:
    return [str(path) for path in temporary.rglob("*") if path.is_file()]


def _visits(folder: Path, small: bool) -> Outcome:
    """All of it, at one explorer, which is then ended by signals."""
    photo = folder / "private.png"
    saved_photo = saved(Image.new("RGB", (32, 32)), "PNG")
    photo.write_bytes(saved_photo)
    temporary = folder / "temporary"
    outcomes = []
    with serving(temporary) as server:
        outcomes.append(_requests(server, photo, small))
        outcomes.append(_odd_uploads(server, small))
        outcomes.append(_memory(server, small))
        outcomes.append(_abandoned(server))
        server.end(signal.SIGTERM)
        left = _left(temporary)
    outcomes.append(Outcome(1, {"files left": len(left)}, left))
    if not small:
        with serving(temporary) as server:
            Page(server, "a").opens("good.png", saved_photo)
            server.end(signal.SIGKILL)
        with serving(temporary) as server:
            server.end(signal.SIGTERM)
        left = _left(temporary)
        outcomes.append(Outcome(1, {"files left": len(left)}, left))
    return added(outcomes)


ATTACKS: tuple[Attack, ...] = (Attack("uploads and requests", "explorer", _visits),)
