"""Samples that share batches have the rows that each has alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.controls import CONTROLS
from benchmarks.data import Sample
from benchmarks.errors import DeviceError
from benchmarks.experiments.attack.toys import good_loaders, good_sample, settings, toys
from benchmarks.measures.explained import Explained
from benchmarks.measures.registry import MEASURES, Measure
from benchmarks.run.folder import RunFolder
from benchmarks.run.loop import run
from benchmarks.run.observed import Seen
from benchmarks.run.rows import COST, Row, RowWriter
from benchmarks.run.together import Step, Work, in_step
from captum_groupcam.methods import Method, MethodSpec, offered_methods

_REGIONS = {"n_segments": 5, "regions": "grid"}
#: Options that make methods cheap.
SMALL: dict[str, dict[str, Any]] = {
    "group_cam": {"n_groups": 3},
    "group_cam_gradient_free": {"n_groups": 3},
    "group_cam_consensus": {"n_groups": 3},
    "rise": {"n_masks": 20},
    "integrated_gradients": {"n_steps": 6},
    "smooth_grad": {"n_samples": 4},
    "gradient_shap": {"n_samples": 4},
    "lime": {"n_samples": 20, **_REGIONS},
    "kernel_shap": {"n_samples": 20, **_REGIONS},
    "shapley_value_sampling": {"n_samples": 2, **_REGIONS},
    "feature_ablation": _REGIONS,
    "occlusion": {"window": 16, "stride": 16},
    "internal_influence": {"n_steps": 4},
    "layer_conductance": {"n_steps": 4},
    "xrai": {"n_steps": 4},
}
OURS = [name for name in MEASURES if not name.startswith(("quantus.", "Parameter"))]
TOGETHER = 4


def rows_of(out: Path, together: int, **changes: Any) -> dict[tuple[str, str, str], Row]:
    """The rows of a run by what each is of."""
    folder = run(settings(out / str(together), samples_per_batch=together, **changes))
    assert folder is not None
    return {row.key: row for row in folder.rows()}


def assert_alike(
    found: dict[tuple[str, str, str], Row], expected: dict[tuple[str, str, str], Row]
) -> None:
    """The same rows but for seconds, for how queries are shared out, and for rounding."""
    taken = {"seconds", "queries", "forward_passes"}

    def about(row: Row) -> Row:
        return replace(
            row,
            seconds=0,
            queries=0,
            scores=dict.fromkeys(row.scores, 0.0),
            curves={name: [len(values)] for name, values in row.curves.items()},
        )

    assert list(found) == list(expected)
    for key, row in found.items():
        other = expected[key]
        assert about(row) == about(other)
        for name in set(row.scores) - taken:
            assert row.scores[name] == pytest.approx(other.scores[name], rel=1e-3, abs=1e-5), key
        for name, curve in row.curves.items():
            # Rounding may order two pixels otherwise.
            assert curve == pytest.approx(other.curves[name], abs=5e-4), key
    # A call may save a pass; it costs none but the row of a batch that is asked alone, too, and the
    # three that show whether the layer has the samples in their order.
    for pair in {key[1:] for key in found}:
        ours, theirs = ([r[key].queries for key in r if key[1:] == pair] for r in (found, expected))
        assert sum(ours) <= sum(theirs) + 4 * -(-len(ours) // TOGETHER), pair


#: Of pooling behind the layer, of attention, and of no ReLU but modules.
FOR_OTHER_NETWORKS = {"cam", "deep_lift", "attention_rollout", "le_grad"}
FOR_OTHER_NETWORKS |= {"guided_backprop", "guided_grad_cam", "deconvolution"}


def specs(names: Sequence[str]) -> list[MethodSpec]:
    return [MethodSpec(name, SMALL.get(name, {})) for name in names]


@pytest.mark.parametrize(
    ("methods", "measures"),
    [
        ([*offered_methods(), *CONTROLS, "truth"], ["PointingGame", "AverageDrop"]),
        (["group_cam", "smooth_grad", "centre"], OURS),
    ],
    ids=["every method", "every measure"],
)
def test_rows_are_those_of_one_at_a_time(
    methods: list[str], measures: list[str], tmp_path: Path
) -> None:
    with toys(good_loaders(TOGETHER + 2)):
        chosen = {"methods": specs(methods), "measures": measures}
        alone, together = (rows_of(tmp_path, count, **chosen) for count in (1, TOGETHER))
    assert_alike(together, alone)
    failed = {key[1] for key, row in alone.items() if row.error}
    assert failed <= FOR_OTHER_NETWORKS


def test_ties_are_broken_by_the_seed_of_each_sample(tmp_path: Path) -> None:
    def explain(_model: nn.Module, inputs: Tensor, _target: Any) -> Tensor:
        return (inputs[:, :1] > 0.5).float()

    method = Method("flat", "Flat", explain, shares_batches=True)
    with toys(good_loaders(TOGETHER), methods={"flat": method}):
        chosen = {"methods": [MethodSpec("flat")], "measures": ["DeletionInsertion", "Agreement"]}
        alone, together = (rows_of(tmp_path, count, **chosen) for count in (1, TOGETHER))
    assert_alike(together, alone)


def sizes(name: str) -> tuple[Method, Measure, dict[str, list[int]]]:
    """A method and a measure that say how many samples each of their calls had."""
    seen: dict[str, list[int]] = {"method": [], "measure": []}

    def explain(_model: nn.Module, inputs: Tensor, _target: Any) -> Tensor:
        seen["method"].append(len(inputs))
        return inputs[:, :1]

    def compute(explained: Explained) -> Tensor:
        seen["measure"].append(len(explained))
        return explained.maps.mean((1, 2, 3))

    return (
        Method(name, name, explain),
        Measure(name, "complexity", {name: True}, compute, "here"),
        seen,
    )


@pytest.mark.parametrize("shares", [True, False])
def test_only_what_says_so_takes_several(shares: bool, tmp_path: Path) -> None:
    method, measure, seen = sizes("sized")
    method, measure = (replace(one, shares_batches=shares) for one in (method, measure))
    with toys(good_loaders(6), methods={"sized": method}, measures={"sized": measure}):
        chosen = {"methods": [MethodSpec("sized")], "measures": ["sized"]}
        rows = rows_of(tmp_path, TOGETHER, **chosen)
    assert seen["method"] == seen["measure"] == ([4, 2] if shares else [1] * 6)
    assert not any(row.error for row in rows.values())


def test_a_measure_that_explains_again_shares_only_with_its_method(tmp_path: Path) -> None:
    method, _, seen = sizes("sized")
    with toys(good_loaders(TOGETHER), methods={"sized": method}):
        rows_of(tmp_path, TOGETHER, methods=[MethodSpec("sized")], measures=["ADCC"])
    assert seen["method"] == [1] * 8


def test_a_run_says_how_many_shared_its_batches(tmp_path: Path) -> None:
    with toys(good_loaders(2)):
        for count in (1, 2):
            rows_of(tmp_path, count, measures=[])
    environments = [
        RunFolder(tmp_path / str(count)).configuration["environment"] for count in (1, 2)
    ]
    assert [one.get("samples_per_batch") for one in environments] == [None, 2]


# --- what goes wrong with one


def bad_load() -> Sample:
    raise OSError("gone")


def without_objects() -> Sample:
    return replace(good_sample(1, "bad"), boxes=None)


def marked() -> Sample:
    """One whose picture is black, by which traps know it."""
    sample = good_sample(1, "bad")
    return replace(sample, image=sample.image.point(lambda _: 0))


def is_marked(inputs: Tensor) -> Tensor:
    return (inputs < -0.99).flatten(1).all(1)


def explain_or_raise(_model: nn.Module, inputs: Tensor, _target: Any) -> Tensor:
    if is_marked(inputs).any():
        raise RuntimeError("not this one")
    return inputs[:, :1]


def nan_map(_model: nn.Module, inputs: Tensor, _target: Any) -> Tensor:
    return torch.where(is_marked(inputs).view(-1, 1, 1, 1), torch.nan, inputs[:, :1])


def warned_map(_model: nn.Module, inputs: Tensor, _target: Any) -> Tensor:
    if is_marked(inputs).any():
        warnings.warn("looks odd", stacklevel=1)
    return inputs[:, :1]


def constant_map(_model: nn.Module, inputs: Tensor, _target: Any) -> Tensor:
    return torch.where(is_marked(inputs).view(-1, 1, 1, 1), 1, inputs[:, :1])


def nan_score(explained: Explained) -> Tensor:
    return torch.where(is_marked(explained.inputs), torch.nan, 1.0)


def one_score_too_few(explained: Explained) -> Tensor:
    return torch.ones(len(explained) - bool(is_marked(explained.inputs).any()))


@pytest.mark.parametrize(
    ("load", "explain", "compute"),
    [
        (bad_load, nan_map, nan_score),
        (without_objects, nan_map, nan_score),
        (marked, explain_or_raise, nan_score),
        (marked, nan_map, nan_score),
        (marked, warned_map, nan_score),
        (marked, constant_map, nan_score),
        (marked, warned_map, one_score_too_few),
    ],
)
def test_one_that_is_bad_spoils_no_other(
    load: Callable[[], Sample],
    explain: Callable[..., Tensor],
    compute: Callable[[Explained], Tensor],
    tmp_path: Path,
) -> None:
    loaders = good_loaders(3)
    loaders = {"good 0": loaders["good 0"], "bad": load, **loaders}
    own = Method("own", "Own", explain, shares_batches=True)
    measure = Measure("own", "complexity", {"own": True}, compute, "here", shares_batches=True)
    with toys(loaders, methods={"own": own}, measures={"own": measure}):
        chosen = {
            "methods": [MethodSpec("own"), MethodSpec("grad_cam")],
            "measures": ["own", "PointingGame", "DeletionInsertion"],
        }
        alone, together = (rows_of(tmp_path, count, **chosen) for count in (1, TOGETHER))
    assert_alike(together, alone)
    about = [row for row in alone.values() if row.error or row.warnings]
    assert {row.sample for row in about} == {"bad"}


def test_a_network_that_fails_for_one_fails_for_no_other(tmp_path: Path) -> None:
    def trap(inputs: Tensor, outputs: Tensor) -> Tensor:
        return torch.where(is_marked(inputs)[:, None], torch.nan, outputs)

    loaders = good_loaders(1) | {"bad": marked} | good_loaders(3)
    with toys(loaders, trap=trap):
        alone, together = (rows_of(tmp_path, count) for count in (1, TOGETHER))
    assert_alike(together, alone)
    assert {row.sample for row in together.values() if row.error} == {"bad"}


def test_a_device_that_breaks_in_a_shared_call_names_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No CPU does so."""
    broken: list[bool] = []
    ones = torch.ones

    def explain(_model: nn.Module, inputs: Tensor, _target: Any) -> Tensor:
        if is_marked(inputs).any():
            broken.append(True)
            raise RuntimeError("CUDA error: device-side assert triggered")
        return inputs[:, :1]

    def ones_or_not(*shape: Any, **options: Any) -> Tensor:
        if broken and "device" in options:
            raise RuntimeError("CUDA error")
        return ones(*shape, **options)

    monkeypatch.setattr(torch, "ones", ones_or_not)
    own = {"own": Method("own", "Own", explain, shares_batches=True)}
    loaders = good_loaders(1) | {"bad": marked}
    with toys(loaders, methods=own):
        chosen = {"methods": [MethodSpec("centre"), MethodSpec("own")], "measures": []}
        with pytest.raises(DeviceError, match=r"one of the samples good 0, bad .*per-batch 1"):
            rows_of(tmp_path, TOGETHER, **chosen)
        broken.clear()
        out = tmp_path / str(TOGETHER)
        assert len(RunFolder(out).rows()) == 2  # of the centre
        with pytest.raises(DeviceError, match="since sample bad"):
            run(settings(out, samples_per_batch=1, **chosen))
    rows = RunFolder(out).rows()
    assert {row.key[:2]: bool(row.error) for row in rows} == {
        ("good 0", "centre"): False,
        ("bad", "centre"): False,
        ("good 0", "own"): False,
        ("bad", "own"): True,
    }


# --- stopped runs


@pytest.mark.parametrize("n_rows", [0, 7, 16])
@pytest.mark.parametrize("together", [1, 3])
def test_a_stopped_run_goes_on(
    n_rows: int, together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = RowWriter.write, [n_rows]

    def write_or_stop(self: RowWriter, row: Row) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(self, row)

    with toys(good_loaders(5)):
        whole = rows_of(tmp_path / "whole", 1)
        out = tmp_path / str(together)
        with monkeypatch.context() as patched:
            patched.setattr(RowWriter, "write", write_or_stop)
            with pytest.raises(KeyboardInterrupt):
                run(settings(out, samples_per_batch=TOGETHER))
        before = {row.key: row for row in RunFolder(out).rows()}
        assert len(before) == n_rows
        after = rows_of(tmp_path, together)
    assert {key: after[key] for key in before} == before  # nothing is done twice
    assert {key: row.scores for key, row in after.items() if key[2] != COST} == {
        key: pytest.approx(dict(row.scores), rel=1e-3, abs=1e-5)
        for key, row in whole.items()
        if key[2] != COST
    }
    assert list(after) == list(whole)


# --- steps


def sample_of(size: int, steps: Sequence[int], calls: list[list[int]], name: str) -> Work:
    """A sample that takes some steps, and yields a row for each."""
    inputs = torch.full((1, 1, size, size), float(len(name)))
    explained = Explained(
        nn.Identity().eval(), inputs, torch.zeros(1, dtype=torch.long), inputs.clone()
    )

    def work(several: Explained) -> list[float]:
        calls.append(several.inputs[:, 0, 0, 0].int().tolist())
        return several.inputs[:, 0, 0, 0].tolist()

    for step in steps:
        value, seen = yield Step((0, step), name, explained, work, at_most=3)
        yield Row(name, "", str(step), {"value": value}, queries=seen["queries"])


def attempt(steps: Sequence[Step]) -> tuple[Sequence[Any], Seen]:
    values = steps[0].work(Explained.joined([step.explained for step in steps]))
    return values, {"error": None, "warnings": [], "seconds": 1.0, "queries": 10}


def test_who_shares_a_step() -> None:
    calls: list[list[int]] = []
    needed = {
        "a": (4, [1, 2]),
        "bb": (4, [2]),
        "ccc": (6, [1, 2]),  # of another size
        "dddd": (4, [1, 2, 3]),
        "eeeee": (4, [2]),
        "ffffff": (4, [2]),
    }
    works = [sample_of(size, steps, calls, name) for name, (size, steps) in needed.items()]
    rows = list(in_step(works, attempt))
    assert calls == [[1, 4], [3], [2, 5, 6], [1, 4], [3], [4]]
    assert {row.sample: row.scores["value"] for row in rows} == {name: len(name) for name in needed}
    assert len(rows) == sum(len(steps) for _, steps in needed.values())
    shared = [row.queries for row in rows if row.sample in ("bb", "eeeee", "ffffff")]
    assert shared == [4, 3, 3]
