"""The committed tables are what the committed rows say, to the last digit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.experiments.judge.ranking import csv_of, judged, markdown_of
from benchmarks.report.files import markdown, tidy_csv
from benchmarks.report.measured import Measured
from benchmarks.report.merge import merge
from benchmarks.report.tables import section_tables
from benchmarks.report.verdict import families, verdict_markdown
from benchmarks.run.folder import RunFolder

RESULTS = Path(__file__).parents[3] / "benchmarks/results"


# Some of many: those that take a second or two.
@pytest.mark.parametrize(
    "folder",
    [
        "compare/voc_squeezenet1_1",
        "sanity/efficientnet_lite0",
        "planted/patch",
        "planted/family",
    ],
)
def test_tables_follow_from_rows(folder: str) -> None:
    (section,) = merge([RunFolder(RESULTS / folder)])
    measured = Measured(section)
    tables = {section.title: section_tables(measured, section.compared)}
    verdict = {section.title: families(measured, section.compared)}
    for name, made in (
        ("table.csv", tidy_csv(tables)),
        ("table.md", markdown(tables)),
        ("verdict.md", verdict_markdown(verdict)),
    ):
        assert made == (RESULTS / folder / name).read_text(encoding="utf-8")


def test_the_verdict_over_all_runs_follows_from_their_rows() -> None:
    page = (RESULTS.parents[1] / "docs/results.md").read_text(encoding="utf-8")
    said = re.search(r"python -m benchmarks report (.*?) \\\n +--out out/all\n", page, re.S)
    assert said
    folders = [Path(name) for name in said[1].replace("\\\n", " ").split()]
    sections = merge([RunFolder(RESULTS.parents[1] / folder) for folder in folders])
    verdicts = {one.title: families(Measured(one), one.compared) for one in sections}
    made = verdict_markdown(verdicts)
    assert made == (RESULTS / "verdict.md").read_text(encoding="utf-8")


def test_the_table_of_the_measures_follows_from_rows() -> None:
    folder = RunFolder(RESULTS / "judge/patch")
    found = judged(folder.rows(), folder.configuration["measures"])
    for name, made in (("table.csv", csv_of(found)), ("table.md", markdown_of(found))):
        assert made == (folder.path / name).read_text(encoding="utf-8")
