"""The tutorial as a notebook."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"


def test_the_notebook_is_that_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jupytext", reason="needs the extra docs")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from notebook import notebook

    monkeypatch.delitem(sys.modules, "notebook")
    made = notebook(PAGE.read_text("utf-8"))
    assert json.loads(made) == json.loads(PAGE.with_suffix(".ipynb").read_text("utf-8")), (
        "Run python scripts/notebook.py."
    )


def test_the_first_cell_installs() -> None:
    cells = json.loads(PAGE.with_suffix(".ipynb").read_text("utf-8"))["cells"]
    assert cells[0]["cell_type"] == "code"
    assert "".join(cells[0]["source"]).startswith("%pip install")
    # The other cells are those of the page, in its order.
    code = ["".join(cell["source"]) for cell in cells[1:] if cell["cell_type"] == "code"]
    blocks = PAGE.read_text("utf-8").split("```{code-cell} python\n")[1:]
    assert code == [block.partition("\n```")[0].strip("\n") for block in blocks]
