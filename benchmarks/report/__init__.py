"""The report of runs: tables, and one page that holds everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..run.folder import RunFolder
from ..run.gallery import file_name
from ..run.rows import RowError
from .files import markdown, tidy_csv
from .merge import merge
from .page import chapter, render
from .verdict import verdict_markdown

__all__ = ["write_report"]


def write_report(folders: Sequence[Path], out: Path, reference: str | None = None) -> Path:
    """Merges runs and writes what they say.

    Runs of one configuration, which may differ in methods, measures, studies and environment, are
    one section; another network or other data make another. Written are::

        index.html     all of it, a page without anything outside itself
        verdict.md     who is at the top and who is behind, a line for each method
        table.md       the tables, to paste
        table.csv      the same, a line for each section, subset, method and score
        results.parquet  the merged rows, each with its section
        figures/       the drawings of the page, as SVG, in a folder for each section

    Args:
        folders (sequence of Path): Folders of runs.
        out (Path): Where to; the folder is made.
        reference (str, optional): The method that others are compared with, where it was run.
            Default: None, Group-CAM, or the first where it was not run.

    Returns:
        Path: The page.

    Raises:
        ValueError: If there are no folders, no rows in them, or the reference is in none.
        ConfigurationError: If a folder is not one of a run, or the same name stands for two
            methods or measures.
        RowError: If rows cannot be read, contradict each other, or files cannot be written.
    """
    if not folders:
        raise ValueError("Expected at least one folder of a run.")
    sections = merge([RunFolder(folder) for folder in folders])
    for section in sections:
        if not len(section.rows):
            raise ValueError(f"There are no rows yet of {section.title}.")
    compared = list(dict.fromkeys(method for one in sections for method in one.compared))
    if reference is not None and reference not in compared:
        raise ValueError(f"No run has the method {reference!r}: expected one of {compared}.")
    chapters = [chapter(section, reference) for section in sections]
    tables = {one.title: one.all_tables for one in chapters}
    files = {
        "verdict.md": verdict_markdown({one.title: one.verdict for one in chapters}),
        "table.md": markdown(tables),
        "table.csv": tidy_csv(tables),
        "index.html": render(chapters),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            # File names need not be Unicode.
            (out / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        for one in chapters:
            folder = out / "figures" / file_name(one.title)
            folder.mkdir(parents=True, exist_ok=True)
            for figure in one.figures:
                (folder / f"{file_name(figure.name)}.svg").write_bytes(figure.content)
        sections[0].rows.write_all(out / "results.parquet")
    except OSError as error:
        raise RowError(f"The report at {out} cannot be written: {error.strerror}.") from error
    return out / "index.html"
