"""The page of a report: its figures, its texts, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from benchmarks.report import write_report
from benchmarks.report.figures import varied
from benchmarks.report.labels import place_labels
from benchmarks.run.folder import RunFolder
from benchmarks.run.loop import RunSettings, run
from benchmarks.run.rows import Row
from captum_groupcam.methods import MethodSpec
from tests.benchmarks.report.report_runs import ALL_MEASURES, configuration, rows_of, write_run

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

EVIL = "<script>alert('$x$')</script>"
LONG = "group_cam:denoise_at=input,denoise_percentile=50,n_groups=8"
METHODS = ["group_cam", LONG, "grad_cam", "centre", f"edges:{EVIL}=1"]
VARIANTS = ["group_cam:n_groups=1", "group_cam:n_groups=256"]
SAMPLES = [f"{index:02}.jpg" for index in range(8)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything that a page may have."""
    path = tmp_path_factory.mktemp("page")
    setup = configuration(
        [*METHODS, *VARIANTS],
        dataset=EVIL,
        studies={f"groups {EVIL}": ["group_cam", *VARIANTS], "kind": ["group_cam", "grad_cam"]},
    )
    rows = rows_of(SAMPLES, METHODS, ALL_MEASURES) + rows_of(SAMPLES, VARIANTS)
    rows[0] = replace(rows[0], warnings=[EVIL])
    rows[1] = replace(rows[1], scores={}, curves={}, error=EVIL)
    rows.append(Row(EVIL, "", "", error="damaged"))
    folder = RunFolder(write_run(path / "run", setup, rows, n_shown=2))
    (folder.path / "pictures").mkdir()
    Image.new("RGB", (900, 200)).save(folder.path / "pictures" / "cascading randomisation.png")
    other = write_run(path / "other", configuration(METHODS[:2]), rows_of(SAMPLES[:1], METHODS[:2]))
    return write_report([folder.path, other], path / "out")


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_names_and_labels_are_escaped(page: Path) -> None:
    elements = Elements(page)
    assert len(elements.of("script")) == 1
    assert "alert" not in page.read_text().partition("// Sorts")[2]
    assert page.read_text().count("&lt;script&gt;alert(") > 10
    assert "<script" not in (page.parent / "table.md").read_text()


def test_everything_is_in_the_page(page: Path) -> None:
    elements = Elements(page)
    sources = [image["src"] for image in elements.of("img")]
    sources += [image["href"] for image in elements.of("image")]
    links = [link["href"] for link in elements.of("link") + elements.of("a")]
    assert all(str(source).startswith("data:image/") for source in sources)
    assert all(str(link).startswith(("#", "data:")) for link in links)
    identifiers = {attributes["id"] for _, attributes in elements.found if "id" in attributes}
    assert {str(link)[1:] for link in links if str(link).startswith("#")} <= identifiers


def test_pictures_have_texts(page: Path) -> None:
    elements = Elements(page)
    texts = [str(image["alt"]) for image in elements.of("img")]
    assert f"Deletion and insertion curves of {METHODS[-1]}" in " ".join(texts)
    assert "cascading randomisation" in texts
    labels = [str(drawing.get("aria-label")) for drawing in elements.of("svg")]
    assert sum(label.startswith("Map of ") for label in labels) == len(METHODS) * 2
    assert any(label.endswith(": hit") for label in labels)
    assert any(label.endswith(": miss") for label in labels)


def test_the_drawings_are_files_too(page: Path) -> None:
    drawings = {
        base64.b64decode(str(image["src"]).partition(",")[2])
        for image in Elements(page).of("img")
        if str(image["src"]).startswith("data:image/svg+xml;base64,")
    }
    files = list((page.parent / "figures").glob("*/*.svg"))
    assert {file.read_bytes() for file in files} == drawings
    assert any(file.stem == "over_all_against_queries" for file in files)


def test_figures_are_drawings_with_their_texts_as_they_are(page: Path) -> None:
    drawings = [
        ElementTree.fromstring(base64.b64decode(str(image["src"]).partition(",")[2]))
        for image in Elements(page).of("img")
        if str(image["src"]).startswith("data:image/svg+xml;base64,")
    ]
    texts = ["".join(drawing.itertext()) for drawing in drawings]
    assert any("alert('$x$')" in text for text in texts)
    assert any("over_all (higher is better)" in text for text in texts)
    assert not any("mathdefault" in text for text in texts)
    assert not any(element.tag.endswith("script") for one in drawings for element in one.iter())


def test_it_says_how_numbers_were_taken(page: Path) -> None:
    text = page.read_text()
    for said in (
        "squeezenet1_1, layer <code>features.12</code>",
        "9 of 1000 samples",
        "that of the label",
        "What DeletionInsertion is.",
        "tolerance = 15.0",
        "cpu, 2 threads",
        "3: no class of the network (a&lt;b&gt;.jpg, b.jpg, ...)",
        "1: crowd annotation",
        "10,000 bootstrap resamples",
    ):
        assert said in text, said


def test_labels_lie_beside_each_other() -> None:
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(5, 4), layout="constrained")
        axes = figure.subplots()
        x, y = np.array([1.0, 1.0, 1.01, 1.02, 30.0, 31.0, 100.0]), np.full(7, 0.5)
        axes.set_xscale("log")
        axes.plot(x, y, "o")
        place_labels(axes, x, y, [f"method:option={place}" for place in range(7)])
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert len(boxes) == 7
    inside = axes.bbox.expanded(1.02, 1.02)
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)
    assert not any(a.expanded(0.95, 0.95).overlaps(b) for a, b in combinations(boxes, 2))


def test_what_is_varied() -> None:
    labels = ["group_cam", "group_cam:n_groups=8", "group_cam:n_groups=64"]
    methods = configuration([*labels, "grad_cam", "group_cam:denoise_at=input"])["methods"]
    assert varied(labels, methods) == ("n_groups", dict(zip(labels, (32, 8, 64), strict=True)))
    name, values = varied(["group_cam", "grad_cam"], methods)
    assert (name, list(values.values())) == ("variant", ["group_cam", "grad_cam"])
    assert varied([labels[1], "group_cam:denoise_at=input"], methods)[0] == "variant"
    at_layer = {"name": "group_cam", "options": {}, "layer": "features.3"}
    name, values = varied(["group_cam", "other"], {**methods, "other": at_layer})
    assert (name, values["other"]) == ("layer", "features.3")


def test_a_real_run(tmp_path: Path) -> None:
    specs = [MethodSpec("centre"), MethodSpec("grad_cam")]
    settings = RunSettings(
        tmp_path / "run",
        specs,
        ["DeletionInsertion.official", "PointingGame"],
        model="squeezenet1_1",
        weights="random",
        limit=2,
        n_shown=1,
        accelerator="cpu",
    )
    folder = run(settings)
    assert folder is not None
    page = write_report([folder.path], tmp_path / "out")
    elements = Elements(page)
    assert sum(str(d.get("aria-label")).startswith("Map of") for d in elements.of("svg")) == 2
    means = re.findall(r"\| (centre|grad\\_cam) \| \S+ \[", (page.parent / "table.md").read_text())
    assert {"centre", "grad\\_cam"} == set(means)
    values = [
        row.scores["official.over_all"]
        for row in folder.rows()
        if row.method == "centre" and "official.over_all" in row.scores
    ]
    assert (
        f",centre,official.over_all,True,samples,2,0,{sum(values) / 2}"[:50]
        in (page.parent / "table.csv").read_text()
    )


# --- in a browser


def opened(browser: Chrome, page: Path, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


def test_it_opens_without_an_error_or_a_request(browser: Chrome, page: Path) -> None:
    browser.get_log("performance")
    opened(browser, page, 1280)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and message["params"]["documentURL"] == page.as_uri()
    }
    assert page.as_uri() in urls
    assert [url for url in urls - {page.as_uri()} if not url.startswith("data:")] == []
    broken = "return [...document.images].filter(image => !image.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    assert browser.execute_script("return document.images.length") > 20


@pytest.mark.parametrize("width", [375, 768, 1280])
def test_it_does_not_scroll_sideways(browser: Chrome, page: Path, width: int) -> None:
    opened(browser, page, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    tables = "return Math.max(...[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth))"
    if width == 375:
        assert browser.execute_script(tables) > width, "wide tables scroll in their boxes"


def test_columns_sort(browser: Chrome, page: Path) -> None:
    from selenium.webdriver.common.by import By

    opened(browser, page, 1280)
    table = browser.find_element(By.CSS_SELECTOR, "table.results")

    def values() -> list[float]:
        cells = table.find_elements(By.CSS_SELECTOR, "tbody td:nth-child(2)")
        return [float(str(cell.get_attribute("data-value"))) for cell in cells]

    before = values()
    button = table.find_elements(By.CSS_SELECTOR, "thead button")[1]
    button.click()
    assert values() == sorted(before, reverse=True)
    button.click()
    assert values() == sorted(before)


def test_it_prints(browser: Chrome, page: Path) -> None:
    opened(browser, page, 1280)
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
