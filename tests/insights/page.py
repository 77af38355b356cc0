"""The form of Captum Insights, as a user fills it in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SECONDS = 300  # explaining four photos on a busy machine


class Page:
    """What a user does, each step waited for."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def wait(self, until, *ignored: type[Exception]):
        return WebDriverWait(self.browser, SECONDS, ignored_exceptions=ignored).until(until)

    def methods(self) -> list[str]:
        """The methods on offer, once they are there: the form is made anew when they arrive."""
        return self.wait(
            lambda _: [option.text for option in Select(self.field("selected_method")).options],
            StaleElementReferenceException,
            NoSuchElementException,
        )

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
