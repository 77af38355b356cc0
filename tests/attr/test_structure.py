"""A method is read from top to bottom: its class and its algorithm are in short files."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_type_hints

import pytest

import captum_groupcam
from captum_groupcam.attr import _typing, functional
from captum_groupcam.masking.call import prepare
from captum_groupcam.methods import METHODS
from captum_groupcam.networks.target_layer import TargetLayer
from tests.toy_networks import Recorder, classifier, images

#: Docstrings included.
MOST_LINES = 120
#: Classes that give their options to a function.
ALGORITHMS = {
    "GroupCAM": functional.group_cam,
    "RISE": functional.rise,
    "ScoreCAM": functional.score_cam,
    "ConsensusGroupCAM": functional.consensus_group_cam,
    "XRAI": functional.xrai,
}
#: What a type checker knows of ``**options``.
TYPED = {
    "GroupCAM": _typing.GroupCAMOptions,
    "RISE": _typing.RISEOptions,
    "ScoreCAM": _typing.ScoreCAMOptions,
    "ConsensusGroupCAM": _typing.ConsensusOptions,
}
METHOD_FILES = sorted(
    {
        Path(inspect.getsourcefile(part))
        for method in METHODS.values()
        if method.kind == "method"
        for part in (method.explain, ALGORITHMS.get(method.explain.__name__, method.explain))
    }
)


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_method_is_in_short_files(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_files_of_classes_and_of_algorithms_are_looked_at():
    names = {f"{path.parent.name}/{path.name}" for path in METHOD_FILES}
    assert names >= {"attr/group_cam.py", "functional/group_cam.py", "attr/layer_cam.py"}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_class_has_the_options_of_its_function(name):
    attribute = inspect.signature(getattr(captum_groupcam, name).attribute).parameters
    options = inspect.signature(ALGORITHMS[name]).parameters.values()
    options = {one.name: one.default for one in options if one.kind is one.KEYWORD_ONLY}
    assert {option: attribute[option].default for option in options} == options


@pytest.mark.parametrize("name", TYPED)
def test_a_type_checker_knows_the_options_that_there_are(name):
    attribute = inspect.unwrap(getattr(captum_groupcam, name).attribute)
    code = attribute.__code__
    written = {*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], "return"}
    hints = get_type_hints(attribute)
    known = {option: hint for option, hint in hints.items() if option not in written}
    assert known == get_type_hints(TYPED[name])


OUT_OF_RANGE = [
    (functional.group_cam, {"denoise_at": "output"}, "'layer' or 'input', got 'output'"),
    (functional.group_cam, {"n_groups": 0}, "n_groups must be at least 1"),
    (functional.group_cam, {"grouping": "random"}, "Unknown grouping 'random'"),
    (functional.group_cam, {"denoise_percentile": 100}, "denoise_percentile must be in"),
    (functional.consensus_group_cam, {"n_groups": 0}, "n_groups must be at least 1"),
    (functional.consensus_group_cam, {"denoise_percentile": -1}, "denoise_percentile must be in"),
    (functional.consensus_group_cam, {"edge_radius": 1}, "edge_radius must be in"),
    (functional.consensus_group_cam, {"shares": (0.5, 1)}, "each of shares must be in"),
    (functional.score_cam, {"weighting": "plain"}, "weighting must be"),
    (functional.score_cam, {"n_samples": 0, "smoothing": "noise"}, "n_samples must be at least 1"),
]


@pytest.mark.parametrize(
    ("function", "options", "message"), OUT_OF_RANGE, ids=[str(case[1]) for case in OUT_OF_RANGE]
)
def test_a_function_refuses_options_before_it_asks_the_network(function, options, message):
    network = classifier()
    recorder = Recorder(network)
    call = prepare(recorder, images(1, 12, 12), 1, None)
    with pytest.raises(ValueError, match=message):
        function(call, TargetLayer(network.features), **options)
    assert recorder.batch_sizes == []


def test_an_unknown_option_is_an_error():
    network = classifier()
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_gruops'"):
        captum_groupcam.GroupCAM(network, network.features).attribute(
            images(1, 12, 12), 1, n_gruops=4
        )
