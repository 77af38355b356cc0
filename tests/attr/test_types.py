"""What a type checker tells the user: what comes back, and which options there are."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SNIPPET = """
import torch
from torch import Tensor, nn
from typing_extensions import assert_type

from captum_groupcam import (
    CAM, RISE, XRAI, GradCAM, GradCAMPlusPlus, GroupCAM, LayerCAM, ScoreCAM, ConsensusGroupCAM
)
from captum_groupcam.masking.masks import LayerMasks

net: nn.Module = nn.Sequential(nn.Conv2d(3, 4, 3))
x = torch.ones(1, 3, 8, 8)
pair = (x, torch.ones(1))
Maps = tuple[Tensor, ...]

group_cam = GroupCAM(net, net)
assert_type(group_cam.attribute(x, 3), Tensor)
assert_type(group_cam.attribute(pair, [3], None, True, False, n_groups=4), Maps)
assert_type(group_cam.attribute(x, 3, return_group_scores=True), tuple[Tensor, Tensor])
assert_type(group_cam.attribute(pair, 3, return_group_scores=True), tuple[Maps, Tensor])
assert_type(group_cam.attribute(x, return_group_masks=True), tuple[Tensor, Tensor, LayerMasks])
assert_type(ConsensusGroupCAM(net, net).attribute(pair, 3, shares=(0.1,)), Maps)
assert_type(
    ConsensusGroupCAM(net, net).attribute(x, 3, return_effects=True), tuple[Tensor, Tensor]
)
for formula in (CAM(net, net), GradCAM(net, net), GradCAMPlusPlus(net, net), LayerCAM(net, net)):
    assert_type(formula.attribute(x, 3, relu_attributions=True), Tensor)
    assert_type(formula.attribute(pair, 3), Maps)
assert_type(ScoreCAM(net, net).attribute(pair, 3, weighting="increase"), Maps)
assert_type(RISE(net).attribute(x, 0.0, 3, n_masks=10), Tensor)
assert_type(XRAI(net).attribute((x,), (lambda whole: whole / 2,), target=3), Maps)

group_cam.attribute(x, 3, n_gruops=4)
group_cam.attribute(x, 3, n_groups="4")
ScoreCAM(net, net).attribute(x, 3, weighting="plain")
"""
WRONG = ["n_gruops=4", 'n_groups="4"', 'weighting="plain"']


def test_a_users_program(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    program = tmp_path / "program.py"
    program.write_text(SNIPPET)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    found, errors, _status = api.run(["--strict", "--cache-dir", str(tmp_path), "program.py"])
    assert errors == ""
    lines = SNIPPET.splitlines()
    blamed = {int(m.split(":")[1]) for m in found.splitlines() if ": error: " in m}
    assert [lines[number - 1] for number in sorted(blamed)] == [
        line for line in lines if any(wrong in line for wrong in WRONG)
    ], found
