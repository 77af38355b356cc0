"""The served page of Captum Insights in a real browser, with the script of the how-to behind it."""

from __future__ import annotations

import os
import re
import shutil
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

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

SCRIPT = Path(__file__).parents[2] / "docs" / "how-to" / "insights_page.py"
SECONDS = 300  # explaining four photos on a busy machine


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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--disable-sync",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
        # The page has to do without a network.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
        "--window-size=1280,1000",
    ):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as browser:
        yield browser


@pytest.fixture
def page(browser: Chrome, address: str) -> Page:
    return Page(browser, address)


class Page:
    """What a user does on the page, each step waited for."""

    def __init__(self, browser: Chrome, address: str) -> None:
        self.browser = browser
        # The server prints its address before it listens.
        self.wait(lambda browser: browser.get(address) or True, WebDriverException)
        # The form is made anew when its choices arrive.
        self.wait(
            lambda _: Select(self.field("selected_method")).options, StaleElementReferenceException
        )

    def wait(self, until, *ignored: type[Exception]):
        return WebDriverWait(self.browser, SECONDS, ignored_exceptions=ignored).until(until)

    def field(self, name: str):
        return self.browser.find_element(By.NAME, name)

    def choose(self, method: str) -> None:
        Select(self.field("selected_method")).select_by_value(method)

    def set_number(self, name: str, value: int) -> None:
        self.field(name).send_keys(Keys.CONTROL, "a")
        self.field(name).send_keys(str(value))
        assert self.field(name).get_property("value") == str(value)

    def pictures(self) -> list[str]:
        images = self.browser.find_elements(By.CSS_SELECTOR, "img[alt=attribution]")
        return [image.get_property("src") for image in images]

    def fetch(self) -> list[str]:
        """The attributions, once they are there."""
        self.browser.find_element(By.XPATH, "//button[text()='Fetch']").click()
        return self.wait(lambda _: not self.loading() and self.pictures())

    def loading(self) -> bool:
        return bool(self.browser.find_elements(By.CSS_SELECTOR, "[class*=spinner]"))


def test_controls_are_there(page: Page):
    methods = [option.text for option in Select(page.field("selected_method")).options]
    assert methods[-4:] == ["Group-CAM", "Score-CAM", "Grad-CAM++", "RISE"]
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
