"""The served page of Captum Insights in a real browser, with the script of the how-to behind it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytest.importorskip(
    "captum.insights", reason="no Captum Insights: captum 0.8 has it, with its extra [insights]"
)
pytest.importorskip("selenium", reason="needs selenium: pip install 'captum_groupcam[dev]'")

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from captum_groupcam.insights import offered
from tests.insights.page import Page

SCRIPT = Path(__file__).parents[2] / "docs" / "how-to" / "insights_page.py"

pytestmark = pytest.mark.xdist_group("insights")  # one server for all tests


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the page; the server, which has no end of its own, ends with the tests."""
    errors = tmp_path_factory.mktemp("server") / "stderr"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-u", str(SCRIPT)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {"MPLBACKEND": "agg"},
        ) as server,
    ):
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if found := re.search(r"http://localhost:\d+", line):
                    yield found[0]
                    break
            else:
                pytest.fail(f"The server ended:\n{errors.read_text()}")
        finally:
            server.kill()


@pytest.fixture
def page(browser: Chrome, address: str) -> Page:
    page = Page(browser)
    # The server prints its address before it listens.
    page.wait(lambda browser: browser.get(address) or True, WebDriverException)
    page.methods()
    return page


def test_controls_are_there(page: Page):
    assert page.methods()[-len(offered()) :] == list(offered())
    page.choose("Group-CAM")
    assert page.field("n_groups").get_property("value") == "32"
    assert page.field("n_groups").get_property("min") == "1"
    assert page.field("denoise_percentile").get_property("value") == "70"
    choices = [option.text for option in Select(page.field("denoise_at")).options]
    assert choices == ["layer", "input"]
    page.choose("RISE")
    assert page.field("n_masks").get_property("value") == "4000"


def test_the_picture_follows_n_groups(page: Page):
    page.choose("Group-CAM")
    page.set_number("n_groups", 6)
    first = page.fetch()
    assert len(set(first)) == 4, "Four photos give four maps."

    page.set_number("n_groups", 2)
    second = page.fetch()
    assert all(before != after for before, after in zip(first, second, strict=True))

    page.set_number("n_groups", 6)
    assert page.fetch() == first


def test_another_class_on_click(page: Page):
    page.choose("Group-CAM")
    page.set_number("n_groups", 6)
    before = page.fetch()
    page.browser.find_element(By.XPATH, "//button[starts-with(text(), 'projectile')]").click()
    after = page.wait(
        lambda _: not page.loading() and page.pictures() != before and page.pictures()
    )
    changed = [a != b for a, b in zip(before, after, strict=True)]
    assert changed == [False, False, True, False], "The third photo is the rocket."
