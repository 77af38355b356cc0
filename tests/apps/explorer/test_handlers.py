"""What happens on a click, without a page: mostly on clicks that no page makes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

pytest.importorskip(
    "gradio",
    reason="needs gradio: pip install 'captum_groupcam[explorer]'",
    exc_type=ImportError,
)

import gradio as gr

from captum_groupcam.apps.explorer._handlers import Handlers
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._visitors import GRACE, Visitor, Visitors
from tests.apps.explorer.conftest import LITE0, RANDOM
from tests.toy_networks import hooks


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def request(session: str = "a", **query: str) -> Any:
    return SimpleNamespace(session_hash=session, query_params=query)


def event(index: Any = None, value: Any = None) -> Any:
    return SimpleNamespace(index=index, value=value)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def on(models: Models, tmp_path: Path, clock: Clock) -> Handlers:
    visitors = Visitors(tmp_path / "pages", clock=clock)
    visitors.admit("a", "here")
    return Handlers(models, visitors, time_limit=60, clock=clock)


@pytest.fixture
def visitor(on: Handlers) -> Visitor:
    """Who looks at the cat."""
    on.open_sample(LITE0, event(0), request())
    return on.visitors["a"]


def silent(*_: Any, **__: Any) -> None:
    """Reports no progress."""


def explain(on: Handlers, method: str = "grad_cam", progress: Any = silent, **options: Any):
    return on.explain(LITE0, "", 281, [(method, options)], request(), progress)


def files(on: Handlers, name: str = "*") -> list[Path]:
    return [path for path in on.visitors.folder.rglob(name) if path.is_file()]


def size(shown: dict[str, Any]) -> tuple[int, int]:
    with Image.open(shown["value"]) as image:
        return image.size


def test_a_sample_is_shown(on: Handlers) -> None:
    photo, bars, target, seen, *_ = on.open_sample(LITE0, event(0), request())
    assert (photo["label"], size(photo)) == ("cat", (451, 300))
    assert size(seen) == (224, 224)
    assert len(bars) == 5
    assert next(iter(bars)) == "tiger cat (282)"
    assert (len(target["choices"]), target["value"]) == (1000, 282)
    assert list(on.show_classes(1, request())) == [*bars, "goldfish (1)"]
    assert on.show_classes(282, request()) == bars
    assert on.choose_class(event(value="goldfish (1)")) == 1


def test_an_upload_is_kept_for_another_network(on: Handlers, cat_file: Path) -> None:
    cleared, photo, *_ = on.open_file(str(cat_file), "my cat.png", LITE0, request())
    assert cleared is None
    assert photo["label"] == "my cat.png"
    cat_file.unlink()  # as the sweeper does
    layers, photo, *_ = on.choose_model(RANDOM, request())
    assert ("features", "features") in layers["choices"]
    assert photo["label"] == "my cat.png"
    view = on.visitors["a"].view
    assert view is not None
    assert (view.model, view.thumbnail.size) == (RANDOM, (451, 300))
    with pytest.raises(gr.Error, match="efficientnet_lite0 has not seen the image"):
        explain(on)


def test_a_link_chooses_the_class_of_the_first_photo(on: Handlers) -> None:
    link = {"network": RANDOM, "layer": "features.7", "target": "287", "method": "rise"}
    settings, layers, classes = on.restore(request(**link))
    assert settings == {**link, "target": 287}
    assert layers["value"] == "features.7"
    assert "features.3" in [name for _, name in layers["choices"]]
    assert classes["choices"] == [("lynx (287)", 287)]

    first = on.open_sample(RANDOM, event(0), request())
    assert first[2]["value"] == 287
    assert "lynx (287)" in first[1], "Its bar is shown, too."
    second = on.open_sample(RANDOM, event(0), request())
    assert second[2]["value"] == on.visitors["a"].view.ranked[0][0]


def test_another_network_has_other_classes_than_a_link(on: Handlers) -> None:
    on.restore(request(target="287"))
    on.choose_model(RANDOM, request())
    assert on.open_sample(LITE0, event(0), request())[2]["value"] == 282


def test_a_page_begins_with_the_first_network(on: Handlers) -> None:
    settings, layers, _ = on.restore(request())
    assert (settings, layers["value"]) == ({}, "")
    assert ("_bn1", "_bn1") in layers["choices"]


def test_a_link_to_another_network_is_said_to_be_one(on: Handlers) -> None:
    # Gradio warns in the log where there is no page.
    with pytest.warns(UserWarning, match=r"<br>Unknown network &#x27;&lt;b&gt;os&lt;/b&gt;&#x27;:"):
        settings, layers, _ = on.restore(request(network="<b>os</b>", layer="features.7"))
    assert (settings, layers["value"]) == ({}, "")
    assert ("_bn1", "_bn1") in layers["choices"]


def test_a_damaged_upload_leaves_the_photo_before_it(
    on: Handlers, cat_file: Path, damaged_file: Path
) -> None:
    on.open_file(str(cat_file), "cat.png", LITE0, request())
    with pytest.raises(gr.Error, match=r"'bad\.jpg: cannot be read"):
        on.open_file(str(damaged_file), "../bad.jpg", LITE0, request())
    with pytest.raises(gr.Error, match="gone is no longer there: upload it again"):
        on.open_file("/gone", "", LITE0, request())
    assert [path.name for path in files(on, "photo*")] == ["photo.png"]
    on.choose_model(RANDOM, request())


def test_fifty_uploads_leave_one(on: Handlers, tmp_path: Path) -> None:
    upload = tmp_path / "upload.png"
    Image.new("RGB", (3000, 3000)).save(upload)
    for _ in range(50):
        on.open_file(str(upload), "black.png", LITE0, request())
    assert len(files(on, "photo*")) == 1
    assert len(files(on)) <= 1 + 2 * 3, "The photo, and a few of the pictures on the page."
    on.visitors.forget("a")
    assert files(on) == []


def test_nothing_is_saved_before_it_is_asked_for(on: Handlers, visitor: Visitor) -> None:
    explain(on)
    for step in range(20):
        first, second, code = on.draw(step / 20, request())
        assert (first["label"], second["visible"]) == ("grad_cam", False)
        assert f"alpha={step / 20}" in code
    assert files(on, "cat_explained.*") == []
    assert len(files(on, "map-0.png")) == 3
    assert Path(on.save_program(0.95, request())).read_text() == code
    assert size({"value": on.save_picture(0.95, request())})[0] > 448
    assert len(files(on, "cat_explained.*")) == 2


def test_the_time_limit(on: Handlers, visitor: Visitor, clock: Clock) -> None:
    seen: list[int] = []

    def progress(done: tuple[int, int], **_: Any) -> None:
        seen.append(done[0])
        clock.now += 25

    with (
        on.visitors.connected("a", "here"),
        pytest.raises(gr.Error, match="Stopped after 60 seconds, the limit of one request"),
    ):
        explain(on, "rise", progress, n_masks=20_000)
    assert len(seen) == 3
    assert hooks(on.models.load(LITE0).network).total() == 0
    explain(on)  # the turn is over


def test_nothing_is_computed_for_a_page_that_is_closed(
    on: Handlers, visitor: Visitor, clock: Clock
) -> None:
    seen: list[int] = []

    def progress(done: tuple[int, int], **_: Any) -> None:
        seen.append(done[0])
        clock.now += GRACE / 2 + 0.1

    with pytest.raises(gr.Error, match="Stopped"):
        explain(on, "rise", progress, n_masks=20_000)
    assert len(seen) == 2


def test_stop_ends_what_runs_and_what_waits(on: Handlers, visitor: Visitor) -> None:
    begun = threading.Event()
    ends: list[str] = []

    def progress(*_: Any, **__: Any) -> None:
        begun.set()

    def ask() -> None:
        with pytest.raises(gr.Error) as error:
            explain(on, "rise", progress, n_masks=20_000)
        ends.append(error.value.message)

    with on.visitors.connected("a", "here"), ThreadPoolExecutor() as pool:
        first = pool.submit(ask)
        assert begun.wait(60)
        second = pool.submit(ask)
        while on.stop(request()) and not (first.done() and second.done()):
            first.exception(60)
    assert ends == ["Stopped."] * 2


def test_what_no_page_sends(on: Handlers, visitor: Visitor) -> None:
    explain(on)
    wrong = {
        "This page has expired": lambda: on.draw(0.5, request("unknown")),
        "There is no such sample": lambda: on.open_sample(LITE0, event([99]), request()),
        "Unknown model 'os:system'": lambda: on.choose_model("os:system", request()),
        "There is no pixel": lambda: on.point_at(0)(event([10_000, 0]), request()),
        "invalid literal": lambda: on.choose_class(event(value="none")),
        "not iterable": lambda: on.point_at(0)(event(7), request()),
        "Unknown method 'x'": lambda: explain(on, "x"),
        "no option 'x'": lambda: explain(on, x=1),
        "no layer 'x'": lambda: on.explain(LITE0, "x", 1, [("cam", {})], request(), silent),
        "There is no class -5": lambda: on.explain(LITE0, "", -5, [("cam", {})], request(), silent),
        "These maps have no groups": lambda: on.divide(request()),
    }
    for message, call in wrong.items():
        with pytest.raises(gr.Error, match=message):
            call()
    assert on.visitors["a"].answers[0].question.method == "grad_cam"


def test_before_there_is_a_map(on: Handlers) -> None:
    for call in (on.save_picture, on.save_program):
        with pytest.raises(gr.Error, match="Explain an image first"):
            call(0.5, request())
    with pytest.raises(gr.Error, match="Choose an image first"):
        explain(on)
    assert on.draw(0.5, request())[2] == ""
    assert on.point_at(0)(event([0, 0]), request()) == ""
    assert on.show_classes(1, request()) == {}
