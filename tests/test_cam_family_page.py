"""The page for users of pytorch-grad-cam and torchcam: its lines run, and nothing is missing."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch

import captum_groupcam
from captum_groupcam.attr import several_layers
from tests.toy_networks import classifier, images, scaled

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/how-to/cam-family.md").read_text(encoding="utf-8")
THEIRS, TORCHCAM = PAGE.split("Of torchcam 0.5:")


def mapped(text: str) -> dict[str, str]:
    """What stands in the first two columns of its tables, by class."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]*) \|", text, re.MULTILINE)
    return {name: here for names, here in rows for name in re.findall(r"\w+", names)}


def test_the_five_lines_give_the_same_maps():
    pytest.importorskip("pytorch_grad_cam")
    before, after = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found = []
    for lines in (before, after):
        model = classifier(seed=2)
        names = {"model": model, "layer": model.features, "images": images(2, 16, 16)}
        exec(lines, names)
        found.append(torch.as_tensor(names["maps"]).reshape(2, 16, 16))
    torch.testing.assert_close(scaled(found[1]), found[0], rtol=1e-4, atol=1e-4)


def test_every_class_of_pytorch_grad_cam_has_a_row():
    theirs = pytest.importorskip("pytorch_grad_cam")
    classes = {name for name, value in vars(theirs).items() if inspect.isclass(value)}
    assert classes - set(mapped(THEIRS)) == set()


def test_every_class_of_torchcam_has_a_row():
    theirs = pytest.importorskip("torchcam.methods")
    public = [*theirs.activation.__all__, *theirs.gradient.__all__]
    assert set(public) - set(mapped(TORCHCAM)) == set()


def test_what_stands_here_is_here():
    for here in (*mapped(THEIRS).values(), *mapped(TORCHCAM).values()):
        for name in re.findall(r"^`(\w+)`$", here):
            assert name in captum_groupcam.__all__ or hasattr(several_layers, name)


def test_the_tests_that_are_named_compare_with_the_package():
    for text, package in ((THEIRS, "pytorch_grad_cam"), (TORCHCAM, "torchcam")):
        for named in re.findall(r"`(tests/attr/\w+\.py)`", text):
            assert package in (ROOT / named).read_text(encoding="utf-8"), named
