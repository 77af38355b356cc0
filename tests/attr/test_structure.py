"""A method is read from top to bottom: its algorithm is in one short file."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import captum_groupcam
from captum_groupcam.attr import functional
from captum_groupcam.masking.call import prepare
from captum_groupcam.methods import METHODS
from captum_groupcam.networks.target_layer import TargetLayer
from tests.toy_networks import classifier, images

#: Docstrings included.
MOST_LINES = 120
#: Classes that describe more arguments than that: they give their options to a function.
ALGORITHMS = {
    "GroupCAM": functional.group_cam,
    "RISE": functional.rise,
    "ScoreCAM": functional.score_cam,
    "SelectiveGroupCAM": functional.selective_group_cam,
    "XRAI": functional.xrai,
}


def algorithm_file(name: str) -> Path:
    """The file of the function to which the class gives its options, or that of the method."""
    explain = METHODS[name].explain
    return Path(inspect.getsourcefile(ALGORITHMS.get(explain.__name__, explain)))


@pytest.mark.parametrize("name", [m.name for m in METHODS.values() if m.kind == "method"])
def test_an_algorithm_is_in_one_short_file(name):
    path = algorithm_file(name)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES, path


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_class_has_the_options_of_its_function(name):
    attribute = inspect.signature(getattr(captum_groupcam, name).attribute).parameters
    options = inspect.signature(ALGORITHMS[name]).parameters.values()
    options = {one.name: one.default for one in options if one.kind is one.KEYWORD_ONLY}
    assert {option: attribute[option].default for option in options} == options


def test_a_function_refuses_options_that_would_be_passed_over():
    network = classifier()
    call = prepare(network, images(1, 12, 12), 1, None)
    activations = call.activations(TargetLayer(network.features))
    with pytest.raises(ValueError, match="'layer' or 'input', got 'output'"):
        functional.group_cam(call, activations, None, denoise_at="output")
