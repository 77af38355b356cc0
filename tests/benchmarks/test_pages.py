"""The pages of the documentation that speak of the benchmark say what is so."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from benchmarks.controls import CONTROLS
from benchmarks.measures.registry import DEFAULT_MEASURES, MEASURES, Measure
from captum_groupcam.methods import METHODS, offered_methods

DOCS = Path(__file__).parents[2] / "docs"


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its own heading."""
    text = (DOCS / page).read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    table = re.search(r"^\|.*\n\|[ :|-]+\n((?:\|.*\n)+)", text, re.M)
    assert table
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in table[1].splitlines()
    ]


def described(measure: Measure) -> list[str]:
    """A measure's row in the protocol."""
    scores = list(measure.higher_is_better.items())
    better = (
        ["higher" if higher else "lower" for _, higher in scores]
        if len(scores) == 1
        else [f"{score} {'higher' if higher else 'lower'}" for score, higher in scores]
    )
    cost = [f"{measure.queries((3, 224, 224))}"]
    if measure.explanations:
        plural = "s" if measure.explanations > 1 else ""
        cost.append(f"{measure.explanations} explanation{plural}")
    name = measure.name + (" *" if measure.name in DEFAULT_MEASURES else "")
    return [
        name,
        measure.category,
        ", ".join(better),
        ", ".join(sorted(measure.needs)),
        ", ".join(cost),
    ]


def test_the_protocol_lists_the_measures():
    assert rows("protocol.md", "## All measures") == [described(one) for one in MEASURES.values()]


def test_the_how_to_lists_the_methods():
    assert [row[0] for row in rows("how-to/methods.md", "## The methods")] == [
        *offered_methods(),
        *CONTROLS,
    ]


def test_the_page_to_choose_by_has_every_method_with_its_cost():
    found = rows("how-to/choose-a-method.md", "## Every method in a line")
    assert [row[0] for row in found] == offered_methods()
    for name, formula, cost, purpose in found:
        assert formula
        assert purpose
        declared = METHODS[name].n_passes()
        assert declared is None or re.split(r"[ ,]", cost)[0] == str(declared), name


def test_the_script_measures_two_images(shared, monkeypatch, capsys):
    folder = shared / "data/ilsvrc_val"
    if not folder.is_dir():
        pytest.skip(f"needs the images in {folder}")
    monkeypatch.setattr(sys, "argv", ["measure.py", str(folder), "2"])
    runpy.run_path(str(DOCS / "how-to/measure.py"))
    number = r"(-?\d\.\d{3})"
    cell = rf"\s+{number} \[\s*{number},\s*{number}\]"
    found = re.findall(rf"^(\S+){cell * 3}$", capsys.readouterr().out, re.M)
    table = {name: [float(value) for value in values] for name, *values in found}
    assert list(table) == [
        "deletion",
        "insertion",
        "over_all",
        "pointing_game",
        "pointing_game.0px",
        "quantus.RelevanceRankAccuracy",
        "quantus.AUC",
        "quantus.Sparseness",
    ]
    for ours, low, high, theirs, their_low, their_high, difference, *_ in table.values():
        assert low <= ours <= high
        assert their_low <= theirs <= their_high
        assert difference == pytest.approx(ours - theirs, abs=0.0011)
    over_all = [i - d for d, i in zip(table["deletion"], table["insertion"], strict=True)]
    for column in (0, 3, 6):
        assert table["over_all"][column] == pytest.approx(over_all[column], abs=0.0011)
    assert table["pointing_game"][0] >= table["pointing_game.0px"][0]
