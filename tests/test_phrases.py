"""The check of phrases."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import check_phrases

    monkeypatch.delitem(sys.modules, "check_phrases")
    return check_phrases


def test_a_phrase_is_found_with_its_line_even_if_it_is_broken(check) -> None:
    unwanted = {"green idea": "colourless"}
    text = "One\nWe Green  idea two.\n# a green\n# idea\nregreen ideament\n"
    assert check.found(text, unwanted) == [
        (2, "Green idea", "colourless"),
        (3, "green # idea", "colourless"),
    ]


def test_the_list_is_read(check) -> None:
    assert check.found("They are not " + "told" + " apart.", check.phrases())
