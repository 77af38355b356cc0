"""Captum Insights' widget in a classic notebook, in a real browser, with the how-to's script."""

from __future__ import annotations

import json
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
pytest.importorskip("nbclassic", reason="needs a classic notebook: pip install nbclassic")

import captum.insights
from selenium.common.exceptions import JavascriptException

from captum_groupcam.insights import offered
from tests.insights.page import Page

# What the wheel installs for notebooks is not built; what lies beside the code is.
WIDGET = Path(captum.insights.__file__).parent / "attr_vis" / "widget" / "static"
SCRIPT = Path(__file__).parents[2] / "docs" / "how-to" / "insights_page.py"

pytestmark = pytest.mark.xdist_group("insights-notebook")  # one server for all tests


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a notebook that renders the widget; its server ends with the tests."""
    folder = tmp_path_factory.mktemp("notebooks")
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": SCRIPT.read_text().replace("visualizer.serve()", "visualizer.render()"),
    }
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = {
        "cells": [cell],
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    extensions = folder / "jupyter" / "nbextensions"
    shutil.copytree(WIDGET, extensions / "jupyter-captum-insights")
    (folder / "insights.ipynb").write_text(json.dumps(notebook))
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "nbclassic", "--no-browser", "--allow-root"),
            *("--port-retries=50", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ
        | {"JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_PATH": str(folder / "jupyter")},
    ) as server:
        assert server.stderr is not None
        said = ""
        try:
            for line in server.stderr:
                said += line
                if found := re.search(r"http://(localhost|127\.0\.0\.1):\d+/", line):
                    yield f"{found[0]}nbclassic/notebooks/insights.ipynb"
                    break
            else:
                pytest.fail(f"The server ended:\n{said}")
        finally:
            server.terminate()  # and its kernel


def test_the_widget_in_a_notebook_follows_n_groups(browser: Chrome, address: str) -> None:
    page = Page(browser)
    browser.get(address)
    page.wait(
        lambda browser: browser.execute_script("return Jupyter.notebook.kernel.is_connected()"),
        JavascriptException,
    )
    browser.execute_script("Jupyter.notebook.execute_all_cells()")
    assert page.methods()[-len(offered()) :] == list(offered())

    page.choose("Group-CAM")
    page.set_number("n_groups", 6)
    first = page.fetch()
    assert len(set(first)) == 4, "Four photos give four maps."
    page.set_number("n_groups", 2)
    second = page.fetch()
    assert all(before != after for before, after in zip(first, second, strict=True))
