"""The numbers in the texts are those of the tables that the benchmark wrote."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from benchmarks.peers import PEERS
from captum_groupcam.methods import METHODS, offered_methods

ROOT = Path(__file__).parents[1]
#: What stands before a table: where its numbers are from. "marked" says that a cell has the marks
#: of the difference to the reference, which otherwise has a column of its own.
MARK = re.compile(
    r"^<!-- (?P<files>\S+table\.csv(?:,\s\S+table\.csv)*): (?P<subset>.+?)(?P<marked>; marked)? -->"
    r"\n\n(?P<table>(?:\|.*\n)+)",
    re.M,
)
PAGES = (
    "README.md",
    "docs/results.md",
    "docs/research/a-better-map.md",
    "docs/research/a-map-that-is-best.md",
    "docs/how-to/choose-a-method.md",
)
TABLES = [
    (page, match)
    for page in PAGES
    for match in MARK.finditer((ROOT / page).read_text(encoding="utf-8"))
]


def in_cell(row: dict[str, str], mean: str, sign: str) -> str:
    if not row[mean]:
        return ""
    low, high = ("low", "high") if mean == "mean" else ("difference_low", "difference_high")
    value, *ends = (f"{float(row[column]):{sign}.3f}" for column in (mean, low, high))
    return f"{value} [{', '.join(ends)}]"


def marks(row: dict[str, str]) -> str:
    if row["significant_corrected"] == "True":
        return r" \*\*"
    return r" \*" if row["significant"] == "True" else ""


def counterpart(method: str) -> str:
    """Our method of the class of a peer, by its name; "" if none is called alike."""
    if method not in PEERS:
        return method
    classes = {
        str(getattr(METHODS[name].attribution, "__name__", "")): name for name in offered_methods()
    }
    return classes.get(method.rpartition(".")[2].replace("_", ""), "")


def test_there_are_tables() -> None:
    assert {page for page, _ in TABLES} == set(PAGES)


@pytest.mark.parametrize(("page", "match"), TABLES)
def test_numbers_are_those_of_the_result_files(page: str, match: re.Match[str]) -> None:
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for path in re.split(r",\s", match["files"]):
        with (ROOT / path).open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["subset"] == match["subset"]:
                    rows.setdefault((row["method"], row["score"]), row)
    lines = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in match["table"].splitlines()
    ]
    header, _, *body = lines
    assert body
    for method, *cells in body:
        score = ""
        for column, cell in zip(header[1:], cells, strict=True):
            if column == "queries":
                expected = f"{float(rows[method.strip('`'), 'queries']['mean']):.0f}"
            elif column == "here":
                name = counterpart(method.strip("`"))
                expected = name and f"`{name}`"
            elif column == "n":
                expected = rows[method.strip("`"), header[2].strip("`")]["n"]
            elif column.startswith("minus "):
                row = rows[method.strip("`"), score]
                assert row["reference"] == column.removeprefix("minus ").strip("`")
                expected = in_cell(row, "difference", "+") + marks(row)
            else:
                (score,) = re.findall(r"`(.+)`", column)
                row = rows.get((method.strip("`"), score))
                expected = in_cell(row, "mean", "") if row else ""
                expected += marks(row) if row and match["marked"] else ""
            assert cell == expected, f"{page}: {method}, {column}"


def test_the_page_to_choose_by_names_the_methods_that_no_table_has() -> None:
    page = "docs/how-to/choose-a-method.md"
    rows = [
        re.findall(r"^\| `([^:`]+)[^|]*\|", match["table"], re.M)
        for where, match in TABLES
        if where == page
    ]
    measured = {counterpart(method) for table in rows for method in table}
    text = (ROOT / page).read_text(encoding="utf-8")
    said = re.search(r"No committed table has these.*?: (.*?)\.\n\n", text, re.S)
    assert said
    named = re.findall(r"`(\w+)`", said[1])
    assert named == [method for method in offered_methods() if method not in measured]
