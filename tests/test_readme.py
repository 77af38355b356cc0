from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from captum_groupcam import GroupCAM

README = Path(__file__).parents[1] / "README.md"


def test_code_runs_as_written(tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)
    assert blocks, "The README has no ```python block."
    monkeypatch.chdir(tmp_path)  # where the code may write what it likes
    monkeypatch.setenv("MPLBACKEND", "agg")
    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    for number, block in enumerate(blocks, start=1):
        try:
            exec(compile(block, f"README.md, block {number}", "exec"), namespace)
        except Exception as error:
            pytest.fail(f"Block {number} of the README: {error!r}\n{block}")
    assert namespace["maps"].amax() > 0


def test_every_option_has_a_row() -> None:
    page = (README.parent / "docs" / "how-to" / "options.md").read_text(encoding="utf-8")
    rows = {name for line in page.splitlines() if line.startswith("| `") for name in named(line)}
    parameters = inspect.signature(GroupCAM.attribute).parameters
    options = {
        name for name in parameters if parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert options <= rows


def named(line: str) -> list[str]:
    """The options that the first cell of a row names."""
    return re.findall(r"`(\w+)`", line.split("|")[1])
