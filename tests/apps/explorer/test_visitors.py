from __future__ import annotations

from pathlib import Path

import pytest

from captum_groupcam.apps.explorer._questions import Photo, Stopped, View
from captum_groupcam.apps.explorer._visitors import (
    GRACE,
    KEPT,
    Allowance,
    Refused,
    Visitor,
    Visitors,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def forgotten() -> list[str]:
    return []


@pytest.fixture
def visitors(tmp_path: Path, clock: Clock, forgotten: list[str]) -> Visitors:
    new = Allowance(1000, clock=clock)
    return Visitors(tmp_path, 6, 4, new, clock, on_forget=forgotten.append)


def test_a_page_is_known_when_it_has_asked(visitors: Visitors) -> None:
    assert visitors.admit("a", "here") is visitors.admit("a", "here") is visitors["a"]
    with pytest.raises(Refused, match="has expired") as refused:
        visitors["b"]
    assert refused.value.status == 410


def test_the_most_pages_of_an_address(visitors: Visitors, clock: Clock, forgotten) -> None:
    for session in "abcd":
        visitors.admit(session, "greedy")
    with pytest.raises(Refused, match="Too many pages are open at your address") as refused:
        visitors.admit("e", "greedy")
    assert refused.value.status == 429
    assert visitors.admit("f", "modest")
    with visitors.connected("b", "greedy"):
        clock.now += GRACE + 1
        visitors.admit("c", "greedy")
        visitors.admit("g", "greedy")
        visitors.admit("h", "greedy")
        assert forgotten == ["a", "d"], "The others are connected, or have just asked."
        with pytest.raises(Refused):
            visitors.admit("i", "greedy")
    assert visitors["f"].address == "modest"


def test_the_most_pages_of_all(visitors: Visitors, clock: Clock, forgotten: list[str]) -> None:
    for number in range(6):
        visitors.admit(str(number), f"address {number}")
    with pytest.raises(Refused, match=r"Too many pages are open\. Try"):
        visitors.admit("late", "address 7")
    clock.now += GRACE + 1
    visitors.admit("0", "address 0")
    visitors.admit("late", "address 7")
    assert forgotten == ["1"]
    assert len(visitors) == 6


def test_a_flood_of_pages_displaces_nobody(visitors: Visitors, clock: Clock) -> None:
    with visitors.connected("mine", "modest"):
        for number in range(100):
            visitors.admit(str(number), "greedy")
            clock.now += GRACE + 1
    assert visitors["mine"]
    assert len(visitors) == 5


def test_new_pages_in_a_while(tmp_path: Path, clock: Clock) -> None:
    visitors = Visitors(tmp_path, new=Allowance(3, 60, clock), clock=clock)
    for session in "abc":
        visitors.admit(session, "here")
    with pytest.raises(Refused, match="Wait for a minute"):
        visitors.admit("d", "here")
    visitors.admit("a", "here")
    clock.now += 60
    visitors.admit("d", "here")


def test_an_allowance_is_each_addresss_own(clock: Clock) -> None:
    bytes_ = Allowance(100, 60, clock)
    assert bytes_.spend("a", 60)
    assert not bytes_.spend("a", 60)
    assert bytes_.spend("b", 60)
    clock.now += 30
    assert bytes_.spend("a", 40)
    clock.now += 30
    assert bytes_.spend("a", 60), "What was spent a minute ago is there again."
    assert not bytes_.spend("a", 1)


def test_who_is_there(visitors: Visitors, clock: Clock) -> None:
    visitor = visitors.admit("a", "here")
    assert visitors.is_there(visitor), "It has just asked."
    with visitors.connected("a", "here"), visitors.connected("a", "here"):
        clock.now += 1000
        assert visitors.is_there(visitor)
    clock.now += GRACE
    assert visitors.is_there(visitor), "A connection may break for a moment."
    clock.now += 1
    assert not visitors.is_there(visitor)


def test_what_is_forgotten_after_an_hour(visitors: Visitors, clock: Clock, forgotten) -> None:
    old = visitors.admit("old", "here")
    file = old.new_file("map", "map.png")
    file.touch()
    stopped = old.stopped
    clock.now += KEPT
    visitors.admit("new", "here")
    visitors.sweep()
    assert file.is_file()
    clock.now += 1
    visitors.sweep()
    assert forgotten == ["old"]
    assert stopped.is_set()
    assert list(visitors.folder.rglob("*.png")) == []
    with pytest.raises(Stopped):
        old.new_file("map", "map.png")
    visitors.close()
    assert len(visitors) == 0


def test_few_files_of_a_kind_are_kept(tmp_path: Path) -> None:
    visitor = Visitor("here", tmp_path)
    files = []
    for number in range(50):
        files.append(visitor.new_file("map", "map.png"))
        files[-1].write_text(str(number))
        visitor.new_file("curves", "curves.png").touch()
    assert [file for file in files if file.exists()] == files[-3:]
    assert len(list(tmp_path.rglob("*.png"))) == 6


def test_a_photo_takes_the_place_of_the_last(tmp_path: Path) -> None:
    upload = tmp_path / "upload.jpg"
    upload.write_bytes(b"photo")
    visitor = Visitor("here", tmp_path / "pages")

    def view(photo: Photo) -> View:
        return View(photo, "net", None, None, None, None, None)  # type: ignore[arg-type]

    first = Photo("a.jpg", visitor.copy(upload))
    visitor.show(view(first))
    visitor.answers = (None,)  # type: ignore[assignment]
    visitor.show(view(first))
    assert first.path.read_bytes() == b"photo", "Another network sees the same photo."
    assert visitor.answers == ()
    second = Photo("b.jpg", visitor.copy(upload))
    visitor.show(view(second))
    assert not first.path.exists()
    visitor.show(view(Photo("cat")))
    assert not second.path.exists()
    assert upload.is_file(), "Somebody else may have uploaded the same."
