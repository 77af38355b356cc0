"""What users import by name has a short path, listed in docs/architecture.md."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")


def rows() -> list[tuple[list[str], str]]:
    """Names and the module that has them."""
    table = PAGE.partition("## Where names are imported from")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE)[2:]
    return [
        (re.findall(r"`(\w+)`", names), re.findall(r"`([\w.]+)`", path)[0]) for names, path in cells
    ]


def test_every_name_is_where_the_table_says() -> None:
    found = rows()
    assert len(found) >= 10
    for names, path in found:
        assert path.count(".") <= 2
        module = importlib.import_module(path)
        assert [name for name in names if not hasattr(module, name)] == []


def test_the_table_has_every_public_module() -> None:
    paths = {path for _, path in rows()}
    assert {
        f"captum_groupcam.{name}"
        for name in (
            *("analysis", "augmentation", "images", "insights", "methods", "metrics", "models"),
            *("networks", "visualization"),
        )
    } <= paths


def test_the_house_is_drawn_in_less_than_40_lines() -> None:
    drawing = PAGE.partition("```text\n")[2].partition("```")[0]
    assert 10 < len(drawing.splitlines()) < 40
    rooms = {"_captum/", "networks/", "masking/", "attr/", "metrics/", "methods/", "apps/"}
    assert all(room in drawing for room in rooms)
