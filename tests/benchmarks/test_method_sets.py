from __future__ import annotations

from benchmarks.experiments.runs import _specs
from captum_groupcam.methods import METHOD_SETS, MethodSpec


def test_one_word_stands_for_captums_methods() -> None:
    specs = _specs(["group_cam captum", "lime:n_samples=9", "grad_cam"])
    names = ["group_cam", *METHOD_SETS["captum"][1:]]
    last = [MethodSpec("lime", {"n_samples": 9}), MethodSpec("grad_cam")]
    assert specs == [*map(MethodSpec, names), *last]
