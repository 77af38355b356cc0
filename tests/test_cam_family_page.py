"""The page for users of pytorch-grad-cam and torchcam: its lines run, and nothing is missing."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import captum_groupcam
from captum_groupcam import metrics, models
from captum_groupcam.attr import layer_formula, several_layers
from captum_groupcam.networks import outputs
from tests.toy_networks import classifier, images, scaled

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/how-to/cam-family.md").read_text(encoding="utf-8")
THEIRS, TORCHCAM = PAGE.split("Of torchcam 0.5:")


def mapped(text: str) -> dict[str, str]:
    """What stands in the first two columns of its tables, by class."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]*) \|", text, re.MULTILINE)
    return {name: here for names, here in rows for name in re.findall(r"\w+", names)}


def public_classes(package: ModuleType) -> Iterator[str]:
    """The classes that any module of a package defines, but private ones."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if inspect.isclass(value) and value.__module__ == found.name and name[0] != "_":
                yield name


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
    classes = set(public_classes(pytest.importorskip("pytorch_grad_cam")))
    assert {"GradCAM", "ClassifierOutputTarget", "ROADCombined"} <= classes
    assert classes - set(mapped(THEIRS)) == set()


def test_every_class_of_torchcam_has_a_row():
    classes = set(public_classes(pytest.importorskip("torchcam")))
    assert {"GradCAM", "ClassificationMetric"} <= classes
    assert classes - set(mapped(TORCHCAM)) == set()


def test_what_stands_here_is_here():
    homes = (captum_groupcam, several_layers, layer_formula, outputs, metrics, models)
    for here in (*mapped(THEIRS).values(), *mapped(TORCHCAM).values()):
        for name in re.findall(r"^`(\w+)`$", here):
            assert any(name in home.__all__ for home in homes), name


def test_the_tests_that_are_named_compare_with_the_package():
    for text, package in ((THEIRS, "pytorch_grad_cam"), (TORCHCAM, "torchcam")):
        for named in re.findall(r"`(tests/attr/\w+\.py)`", text):
            assert package in (ROOT / named).read_text(encoding="utf-8"), named
