"""The explorer in a real browser, behind the command that starts it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import numpy as np
import pytest

pytest.importorskip(
    "gradio",
    reason="needs gradio: pip install 'captum_groupcam[explorer]'",
    exc_type=ImportError,
)
pytest.importorskip("selenium", reason="needs selenium: pip install 'captum_groupcam[dev]'")

from PIL import Image
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

SECONDS = 120  # on a busy machine
PASSING = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
#: Starts the command line, and notes whatever it wants to reach on other machines.
GUARDED = """
import sys

def guard(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        host = arguments[1][0] if event == "socket.connect" else arguments[0]
        if host not in (None, "127.0.0.1", "localhost", "::1"):
            print("FOREIGN", event, arguments, file=sys.stderr, flush=True)

sys.addaudithook(guard)
from captum_groupcam.apps.cli import app
app(sys.argv[1:])
"""


pytestmark = pytest.mark.xdist_group("explorer")  # one server for all tests


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "stderr"


@pytest.fixture(scope="module")
def address(log: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    models = ("--model", "efficientnet_lite0", "--model", "squeezenet1_1=random")
    command = ("explore", "--port", port, "--device", "cpu", *models)
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-u", "-c", GUARDED, *command],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {"MPLBACKEND": "agg"},
            cwd=Path(__file__).parents[3],
        ) as server,
    ):
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    yield found[0]
                    break
            else:
                pytest.fail(f"The server ended:\n{log.read_text()}")
        finally:
            server.kill()


@pytest.fixture
def page(browser: Chrome, address: str) -> Iterator[Page]:
    """The page, without errors in the browser's console from its arrival to the test's end."""
    page = Page(browser, address)
    browser.get_log("browser")  # of leaving the page before
    yield page
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


class Page:
    """What a user does on the page, each step waited for."""

    def __init__(self, browser: Chrome, address: str) -> None:
        self.browser = browser
        self.open(address)
        self.wait(lambda: "_avg_pooling" in self.value("#layer input"))

    def open(self, address: str) -> None:
        self.browser.get(address)
        self.wait(lambda: self.value("#layer input"))

    def wait(self, until):
        wait = WebDriverWait(self.browser, SECONDS, 0.1, ignored_exceptions=PASSING)
        return wait.until(lambda _: until())

    def find(self, css: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, css)

    def click(self, css: str) -> None:
        self.wait(lambda: self.find(css).click() or True)

    def value(self, css: str) -> str:
        return self.find(css).get_property("value")

    def text(self, name: str) -> str:
        return self.find(f"#{name}").text

    def choose(self, name: str, text: str) -> None:
        """Chooses what begins with the text from a list."""
        self.click(f"#{name} input")
        options = f"//ul[@role='listbox']/li[starts-with(@aria-label, '{text}')]"
        self.wait(lambda: self.browser.find_element(By.XPATH, options).click() or True)
        self.wait(lambda: self.find(f"#{name} input").get_property("value").startswith(text))

    def type(self, css: str, text: str) -> None:
        self.click(css)
        self.find(css).send_keys(Keys.CONTROL, "a")
        self.find(css).send_keys(text or Keys.BACKSPACE)

    def open_tab(self, name: str) -> None:
        tab = f"//button[@role='tab'][normalize-space()='{name}']"
        self.wait(lambda: self.browser.find_element(By.XPATH, tab).click() or True)

    def open_options(self, method: str) -> None:
        """Shows the options of the first method."""
        self.click(f"#first-{method} button")

    def open_sample(self, number: int, first_class: str) -> None:
        samples = "#samples .grid-container button"
        self.wait(lambda: self.browser.find_elements(By.CSS_SELECTOR, samples)[number])
        self.browser.find_elements(By.CSS_SELECTOR, samples)[number].click()
        self.wait(lambda: self.text("classes").startswith(f"Likeliest\n{first_class}"))

    def upload(self, photo: Path) -> None:
        """Uploads the photo of the cat."""
        upload = "#upload input[type=file]"
        self.wait(lambda: self.find(upload).send_keys(str(photo)) or True)
        self.wait(lambda: self.text("classes").startswith("Likeliest\ntiger cat"))

    def picture(self, side: str = "first") -> str:
        """Where the browser has a picture from, which differs with what is on it."""
        return self.find(f"#{side}-picture img").get_property("src")

    def changed_picture(self, before: str, side: str = "first") -> str:
        return self.wait(lambda: self.picture(side) != before and self.picture(side))

    def explain(self) -> str:
        before = self.picture()
        self.click("#explain")
        return self.changed_picture(before)

    def link(self) -> str:
        """Presses the button, and takes what the browser's address has become."""
        self.click("#link")
        self.wait(lambda: self.value("#address textarea").startswith("http"))
        assert self.value("#address textarea") == self.browser.current_url
        return self.browser.current_url

    def message(self) -> str:
        text = self.wait(lambda: self.find(".toast-body").text)
        self.click(".toast-close")
        self.wait(lambda: not self.browser.find_elements(By.CSS_SELECTOR, ".toast-body"))
        return text

    def download(self, name: str, file: Path) -> Path:
        """Presses a button, and waits for the file that it gives."""
        allowed = {"behavior": "allow", "downloadPath": str(file.parent)}
        self.browser.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
        self.click(f"#{name}")
        self.wait(file.is_file)
        return file


def pixels_at(place: str) -> np.ndarray:
    with urlopen(place) as file:
        return np.asarray(Image.open(file))


@pytest.fixture
def quick(page: Page) -> Page:
    """The cat, and Group-CAM with few groups."""
    page.open_sample(0, "tiger cat")
    page.open_options("group_cam")
    page.type("#first-group_cam-n_groups input", "2")
    return page


def test_group_cam_explains_a_sample(quick: Page) -> None:
    first = quick.explain()
    assert "tiger cat" in quick.text("status")
    assert "group_cam 4" in quick.text("status"), "Two groups, the image and the baseline."

    quick.type("#first-group_cam-n_groups input", "3")
    second = quick.explain()
    assert "group_cam 5" in quick.text("status")

    quick.choose("target", "lynx")
    assert quick.explain() not in (first, second)
    assert "lynx" in quick.text("status")


def test_an_empty_percentile_is_none(quick: Page) -> None:
    quick.type("#first-group_cam-denoise_percentile textarea", "")
    quick.explain()
    quick.open_tab("Save")
    quick.wait(lambda: "'denoise_percentile': None" in quick.text("code"))


def test_two_methods_and_their_curves(quick: Page) -> None:
    quick.choose("second-method", "grad_cam")
    quick.explain()
    quick.wait(lambda: quick.picture("second"))
    assert quick.picture() != quick.picture("second")
    assert "group_cam 4, grad_cam 1" in quick.text("status")
    quick.open_tab("Curves")
    quick.click("#measure")
    quick.wait(lambda: quick.find("#curves img").is_displayed())


def test_the_groups(quick: Page) -> None:
    quick.explain()
    quick.click("#divide")
    shown = ".groups img"
    quick.wait(lambda: len(quick.browser.find_elements(By.CSS_SELECTOR, shown)) == 2)


def test_opacity_asks_the_network_nothing(quick: Page) -> None:
    before = quick.explain()
    status = quick.text("status")
    quick.type("#alpha input[type=number]", "0")
    bare = quick.changed_picture(before)
    quick.type("#alpha input[type=number]", "0.5")
    again = quick.changed_picture(bare)
    pixels = [pixels_at(place) for place in (bare, before, again)]
    assert not np.array_equal(pixels[0], pixels[1])
    np.testing.assert_array_equal(pixels[1], pixels[2])
    assert quick.text("status") == status


def test_pointing_at_the_picture(quick: Page) -> None:
    quick.explain()
    picture = quick.find("#first-picture img")
    quick.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
    side = min(picture.rect["height"], picture.rect["width"])
    ActionChains(quick.browser).move_to_element_with_offset(
        picture, side / 4, -side / 4
    ).click().perform()
    quick.wait(lambda: quick.text("first-value"))
    x, y = map(int, re.match(r"x = (\d+), y = (\d+): ", quick.text("first-value")).groups())
    assert abs(x - 168) <= 2
    assert abs(y - 56) <= 2


def test_another_network_and_layer(quick: Page) -> None:
    quick.choose("model", "squeezenet1_1")
    quick.wait(lambda: quick.find("#layer input").get_property("value").startswith("features"))
    quick.choose("layer", "features.7")
    quick.explain()
    quick.open_tab("Save")
    code = "load_model('squeezenet1_1', weights='random', layer='features.7"
    quick.wait(lambda: code in quick.text("code"))


def test_an_upload_is_shown_and_its_program_runs_as_saved(
    page: Page, cat_file: Path, tmp_path: Path
) -> None:
    photo = cat_file.rename(tmp_path / "it's <b>my cat (1).png")
    page.upload(photo)
    assert page.text("photo") == photo.name
    np.testing.assert_array_equal(
        pixels_at(page.find("#photo img").get_property("src")), np.asarray(Image.open(photo))
    )
    page.choose("first-method", "grad_cam")
    page.explain()
    page.open_tab("Save")
    page.wait(lambda: "open_image" in page.text("code"))
    again = tmp_path / "again"
    again.mkdir()
    program = page.download("program", tmp_path / "it_s _b_my cat (1)_explained.py")
    downloaded = page.download("png", program.with_suffix(".png"))
    photo.rename(again / photo.name)
    subprocess.run([sys.executable, program], check=True, cwd=again)
    with Image.open(downloaded) as one, Image.open(again / downloaded.name) as other:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_the_class_that_is_asked_for_is_shown(page: Page) -> None:
    page.open_sample(0, "tiger cat")
    assert "goldfish" not in page.text("classes")
    page.choose("target", "goldfish")
    page.wait(lambda: page.text("classes").splitlines()[-2].startswith("goldfish (1)"))
    page.choose("first-method", "grad_cam")
    page.explain()
    assert page.text("status").startswith("goldfish, 0.0%")


def test_uploads(page: Page, cat_file: Path, damaged_file: Path) -> None:
    page.click("#explain")
    assert "Choose an image first." in page.message()
    upload = page.find("#upload input[type=file]")
    upload.send_keys(str(damaged_file))
    message = page.message()
    assert "damaged.jpg: cannot be read as an image" in message
    assert "Traceback" not in message
    assert str(damaged_file.parent) not in message
    page.upload(cat_file)


def test_wrong_options_get_a_message(quick: Page) -> None:
    for number, message in {
        "0": "n_groups must be at least 1, got 0",
        "10000000000": "n_groups must be at most 4096 on a page, got 10000000000",
    }.items():
        quick.type("#first-group_cam-n_groups input", number)
        quick.click("#explain")
        assert message in quick.message()


def test_stop_ends_the_computation(page: Page) -> None:
    page.open_sample(0, "tiger cat")
    page.choose("first-method", "rise")
    page.open_options("rise")
    page.type("#first-rise-n_masks input", "20000")  # many minutes
    page.click("#explain")
    page.wait(lambda: "queries" in page.text("status"))
    page.click("#stop")
    page.wait(lambda: "Stopped." in page.text("status"))
    page.choose("first-method", "grad_cam")
    page.explain()  # one computation at a time: this one waits for the end of the other
    assert "grad_cam 1" in page.text("status")


def test_a_link_restores_the_settings_in_a_fresh_page(quick: Page, address: str) -> None:
    quick.choose("layer", "_conv_head")
    quick.choose("target", "lynx")
    quick.type("#first-group_cam-denoise_percentile textarea", "")
    quick.choose("second-method", "grad_cam")
    quick.type("#alpha input[type=number]", "0.3")
    quick.open_tab("Curves")
    link = quick.link()
    assert link.startswith(f"{address}/?network=efficientnet_lite0&layer=_conv_head&target=287")

    quick.browser.get("about:blank")
    quick.open(link)
    quick.wait(lambda: quick.value("#layer input") == "_conv_head")
    assert quick.value("#target input") == "lynx (287)"
    assert quick.value("#second-method input") == "grad_cam"
    assert quick.value("#alpha input[type=number]") == "0.3"
    assert quick.find("#tabs button[aria-selected=true]").text == "Curves"
    assert not quick.browser.find_elements(By.CSS_SELECTOR, ".toast-body")
    quick.open_sample(0, "tiger cat")
    quick.wait(lambda: quick.value("#target input").startswith("lynx (287), "))
    quick.explain()
    assert quick.text("status").startswith("lynx")
    label = "group_cam, n_groups=2, denoise_percentile=None"
    quick.wait(lambda: label in quick.text("first-picture"))
    assert quick.wait(lambda: quick.text("second-picture")) == "grad_cam"


def test_a_link_to_another_network_keeps_its_layer_and_class(page: Page, address: str) -> None:
    link = "?network=squeezenet1_1%3Drandom&layer=features.7&target=287&method=grad_cam"
    page.open(f"{address}/{link}")
    page.wait(lambda: page.value("#model input") == "squeezenet1_1=random")
    page.click("#samples .grid-container button")
    page.wait(lambda: page.value("#target input").startswith("lynx (287), "))
    assert page.value("#layer input") == "features.7"
    assert page.link() == f"{address}/{link}&opacity=0.5&step=0.1&tab=groups"


def test_what_is_wrong_with_a_link_is_said_without_its_markup(page: Page, address: str) -> None:
    image = "%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D1%22%3E"
    page.open(f"{address}/?method={image}&compare=rise&compare.n_masks=1e9&{image}=1")
    text = page.message()
    assert "Unknown method '<img src=x onerror=" in text
    assert "n_masks must be at most 20000 on a page" in text
    assert "Unknown names: <img src=x" in text
    assert page.browser.title == "Group-CAM explorer"
    assert page.value("#first-method input") == "group_cam"
    page.wait(lambda: page.value("#second-method input") == "rise")


def test_nothing_comes_from_elsewhere(quick: Page, address: str, log: Path) -> None:
    quick.explain()
    events = [json.loads(e["message"])["message"] for e in quick.browser.get_log("performance")]
    requests = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert sum(url.startswith(address) for url in requests) > 10
    foreign = [url for url in requests if not url.startswith((address, "data:", "blob:"))]
    # The browser's own page of new tabs, whose addresses are chrome: and chrome-untrusted:.
    assert [url for url in foreign if not url.startswith("chrome")] == []
    assert log.read_text() == ""
