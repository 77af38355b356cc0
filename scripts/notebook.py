"""Writes the tutorial as a notebook: ``python scripts/notebook.py``.

The page is the source. A test compares the notebook with it.
"""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
NOTEBOOK = PAGE.with_suffix(".ipynb")
INSTALL = "%pip install --quiet 'captum_groupcam[bench]'"


def notebook(page: str) -> str:
    """Makes a notebook of a page with code cells.

    Args:
        page (str): The page, in MyST Markdown.

    Returns:
        str: The notebook as JSON, without outputs; its first cell installs what it needs.
    """
    made = jupytext.reads(page, fmt="md:myst")
    made.cells.insert(0, nbformat.v4.new_code_cell(INSTALL))
    for index, cell in enumerate(made.cells):
        cell.id = f"cell-{index}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    made.metadata = nbformat.from_dict({"kernelspec": kernel})
    made.nbformat, made.nbformat_minor = 4, 5
    nbformat.validate(made)
    return nbformat.writes(made, indent=1) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(PAGE.read_text("utf-8")), "utf-8")
