"""What goes wrong with a sample stays with it, and what is known of it is not asked again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.data import Sample
from benchmarks.experiments.attack.runs import results_of
from benchmarks.experiments.attack.toys import (
    good_loaders,
    good_sample,
    settings,
    toys,
)
from benchmarks.measures.registry import Measure
from benchmarks.run import evaluate
from benchmarks.run.configuration import ConfigurationError, fingerprint
from benchmarks.run.evaluate import DeviceError
from benchmarks.run.folder import RunFolder
from benchmarks.run.lock import locked
from benchmarks.run.loop import prepare, run
from benchmarks.run.rows import COST, Row, RowError
from benchmarks.run.table import RowTable
from captum_groupcam.masking.network import default_batch_size
from captum_groupcam.methods import Method, MethodSpec


def rows_of(out: Path) -> dict[tuple[str, str, str], Row]:
    return {row.key: row for row in RunFolder(out).rows()}


class Counted:
    """Counts images that the network is shown."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        self.batches.append(len(inputs))
        return outputs


# --- what is known is not asked again


def test_a_new_measure_costs_no_timed_passes(tmp_path: Path) -> None:
    seen = Counted()
    timed = default_batch_size(torch.device("cpu"))
    with toys(good_loaders(2), trap=seen):
        run(settings(tmp_path, measures=["PointingGame"]))
        assert seen.batches.count(timed) == 2 * 2
        before = rows_of(tmp_path)
        seen.batches.clear()
        run(settings(tmp_path, measures=["PointingGame", "AverageDrop"]))
        assert timed not in seen.batches
    after = rows_of(tmp_path)
    assert {key: after[key] for key in before} == before
    assert len(after) == 2 * 2 * 3


def test_a_method_that_failed_is_tried_again_only_when_asked_for(tmp_path: Path) -> None:
    calls: list[bool] = [False]

    def explain(_model: Any, inputs: Tensor, _target: Any) -> Tensor:
        calls.append(True)
        if not works:
            raise OSError("not now")
        return inputs[:, :1]

    works = False
    method = Method("shy", "Shy", explain)
    with toys(good_loaders(1), methods={"shy": method}):
        shy = settings(tmp_path, methods=[MethodSpec("shy")])
        run(shy)
        assert len(calls) == 2
        run(replace(shy, measures=["PointingGame", "quantus.Sparseness"]))
        assert len(calls) == 2  # without a map there is nothing to measure either
        works = True
        run(replace(shy, retry=True))
        assert len(calls) == 3
    rows = rows_of(tmp_path)
    assert [row.error for row in rows.values()] == [None] * 3
    assert {measure for _, _, measure in rows} == {COST, "PointingGame", "AverageDrop"}


def test_a_measure_that_failed_is_tried_again_only_when_asked_for(tmp_path: Path) -> None:
    values = [float("nan")]

    def compute(_explained: Any) -> Tensor:
        return torch.tensor([values[-1]])

    measure = Measure("odd", "faithfulness", {"odd": True}, compute, "here")
    with toys(good_loaders(1), measures={"odd": measure}):
        odd = settings(tmp_path, measures=["odd"])
        run(odd)
        values.append(0.5)
        run(odd)
        errors = {row.error for row in rows_of(tmp_path).values() if row.measure == "odd"}
        assert errors == {"ValueError: odd should be finite, and is nan"}
        run(replace(odd, retry=True))
    scores = [dict(row.scores) for row in rows_of(tmp_path).values() if row.measure == "odd"]
    assert scores == [{"odd": 0.5}] * 2


def test_a_sample_that_fails_later_keeps_its_results(tmp_path: Path) -> None:
    with toys(good_loaders(2)):
        run(settings(tmp_path, measures=["PointingGame"]))
    before = rows_of(tmp_path)
    calls = []

    def gone() -> Sample:
        calls.append(True)
        raise FileNotFoundError("gone")

    with toys(good_loaders(1) | {"good 1": gone}):
        both = settings(tmp_path, measures=["PointingGame", "AverageDrop"])
        run(both)
        after = rows_of(tmp_path)
        assert {key: after[key] for key in before} == before
        failed = {key: row.error for key, row in after.items() if row.error}
        assert failed == dict.fromkeys(
            (("good 1", method, "AverageDrop") for method in ("centre", "grad_cam")),
            "FileNotFoundError: gone",
        )
        # Looked at by the run that measured and by its end; not to be measured again.
        n_calls = len(calls)
        content = (tmp_path / "results.parquet").read_bytes()
        run(both)
        assert len(calls) == n_calls + 1
        assert (tmp_path / "results.parquet").read_bytes() == content


@pytest.mark.parametrize("ranks", [(0, 1), (1, 0)])
def test_a_result_counts_more_than_an_earlier_failure(
    ranks: tuple[int, int], tmp_path: Path
) -> None:
    """The files of processes have no order in time."""
    with toys(good_loaders(1)):
        run(settings(tmp_path, measures=[]))
    folder = RunFolder(tmp_path)
    good = next(row for row in folder.rows() if row.method == "centre")
    (tmp_path / "results.parquet").unlink()
    bad = Row(*good.key, error="before")
    for rank, row in zip(ranks, (bad, good), strict=True):
        with folder.writer(rank) as writer:
            writer.write(row)
    assert folder.rows() == [good]


# --- pictures, maps, devices


def test_a_picture_that_cannot_be_drawn_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: Any) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr(evaluate, "certainty_figure", draw)
    with toys(good_loaders(1)):
        specs = [MethodSpec("group_cam", {"n_groups": 2})]
        run(settings(tmp_path, methods=specs))
    rows = rows_of(tmp_path)
    assert not any(row.error for row in rows.values())
    warnings = {key[2]: list(row.warnings) for key, row in rows.items() if row.warnings}
    assert warnings == {COST: ["A picture is missing. ValueError: no ink"]}


def test_a_map_with_a_graph_is_measured_without_it(tmp_path: Path) -> None:
    seen = []

    def explain(_model: Any, inputs: Tensor, _target: Any) -> Tensor:
        return inputs[:, :1].requires_grad_() * 2

    def compute(explained: Any) -> Tensor:
        seen.append(explained.maps)
        return explained.maps.mean((1, 2, 3))

    measure = Measure("mean", "complexity", {"mean": True}, compute, "here")
    with toys(
        good_loaders(1), methods={"own": Method("own", "Own", explain)}, measures={"mean": measure}
    ):
        run(settings(tmp_path, methods=[MethodSpec("own")], measures=["mean"]))
    (maps,) = seen
    assert not maps.requires_grad
    assert rows_of(tmp_path)["good 0", "own", "mean"].scores["mean"] == pytest.approx(
        float(maps.mean())
    )


def test_a_broken_device_ends_the_run_after_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample may leave a GPU unusable until the process ends; no CPU does so."""
    broken = []

    def load(index: int) -> Sample:
        if index == 1:
            broken.append(True)
            raise RuntimeError("CUDA error: device-side assert triggered")
        return good_sample(index)

    ones = torch.ones

    def ones_or_not(*shape: Any, **options: Any) -> Tensor:
        if broken and "device" in options:
            raise RuntimeError("CUDA error")
        return ones(*shape, **options)

    loaders = {f"good {index}": partial(load, index) for index in range(3)}
    with toys(loaders):
        with monkeypatch.context() as patched:
            patched.setattr(torch, "ones", ones_or_not)
            with pytest.raises(DeviceError, match="answers no more since sample good 1"):
                run(settings(tmp_path))
        assert {row.sample for row in RunFolder(tmp_path).rows()} == {"good 0", "good 1"}
        broken.clear()
        run(settings(tmp_path))
    assert not broken
    rows = rows_of(tmp_path)
    assert {key[0] for key in rows if not rows[key].error} == {"good 0", "good 2"}


# --- the run's network, data and folder


def test_random_weights_are_the_same_after_a_stop(tmp_path: Path) -> None:
    with toys(good_loaders(2)):
        chosen = settings(tmp_path / "stopped", weights="random", seed=5)
        run(replace(chosen, limit=1))
        torch.rand(3)  # whatever else has been drawn
        run(chosen)
        run(replace(chosen, out=tmp_path / "whole"))
        with pytest.raises(ConfigurationError, match=r"seed: 5, now 6.*weights: '.*weights_seed"):
            run(replace(chosen, seed=6))
        evaluator, _ = prepare(chosen)
    assert results_of(tmp_path / "stopped") == results_of(tmp_path / "whole")
    configuration = RunFolder(tmp_path / "stopped").configuration
    assert configuration["weights_seed"] == 5
    assert configuration["weights"] == fingerprint(evaluator.model.network)


def test_loading_the_network_draws_nothing_from_the_global_generator(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    with toys(good_loaders(1)):
        prepare(settings(tmp_path, weights="random"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_networks_of_any_precision_have_a_fingerprint(dtype: torch.dtype) -> None:
    one, other = (torch.nn.Linear(3, 2).to(dtype) for _ in range(2))
    assert fingerprint(one) != fingerprint(other)
    other.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(other)


def test_a_folder_of_old_says_nothing_of_its_data_and_goes_on(tmp_path: Path) -> None:
    with toys(good_loaders(2)):
        run(settings(tmp_path, limit=1))
        rows = [json.loads(row.to_json()) for row in RunFolder(tmp_path).rows()]
        assert all(len(row.pop("digest")) == 12 for row in rows)
        (tmp_path / "results.parquet").unlink()
        (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run(settings(tmp_path))
    assert {row.sample for row in RunFolder(tmp_path).rows()} == {"good 0", "good 1"}


def test_a_sample_that_has_changed_is_named_in_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not among those that are looked at before, which are a part of many."""
    monkeypatch.setattr("benchmarks.run.loop._N_LOOKED_AT", 1)
    with toys(good_loaders(2)):
        run(settings(tmp_path, measures=["PointingGame"]))
    turned = replace(good_sample(1), image=good_sample(1).image.rotate(90))
    with toys(good_loaders(1) | {"good 1": lambda: turned}):
        run(settings(tmp_path, measures=["PointingGame", "AverageDrop"]))
    failed = {key: str(row.error) for key, row in rows_of(tmp_path).items() if row.error}
    assert set(failed) == {("good 1", name, "AverageDrop") for name in ("centre", "grad_cam")}
    assert all(
        "is not what it was when its other rows were made" in text for text in failed.values()
    )


def test_who_holds_the_folder_is_said(tmp_path: Path) -> None:
    with toys(good_loaders(1)):
        with locked(tmp_path):
            files = {path.name for path in tmp_path.iterdir()}
            with pytest.raises(RowError, match=rf"at work in .*: process {os.getpid()} on "):
                run(settings(tmp_path))
            assert {path.name for path in tmp_path.iterdir()} == files
            (tmp_path / "run.json").write_text("half")
            with pytest.raises(RowError, match="which one is not known yet"):
                run(settings(tmp_path))
        run(settings(tmp_path))
    assert not (tmp_path / "run.json").exists()


def test_only_files_that_were_read_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with toys(good_loaders(2)):
        run(settings(tmp_path))
    folder = RunFolder(tmp_path)
    late = Row("good 1", "centre", COST, {"seconds": 1.0}, label="kind 1")
    write = RowTable.write
    with folder.writer(0) as writer:
        writer.write(late)

    def write_and_more(*arguments: Any) -> None:
        write(*arguments)
        with folder.writer(7) as writer:
            writer.write(late)

    with monkeypatch.context() as patched:
        patched.setattr(RowTable, "write", write_and_more)
        folder.finish({})
    assert [path.name for path in tmp_path.glob("results-*.jsonl")] == ["results-7.jsonl"]
    assert rows_of(tmp_path)[late.key] == late
