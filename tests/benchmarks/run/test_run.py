"""Which rows a run has, which samples, methods and measures it takes, and what it keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.data import DATASETS, to_inputs
from benchmarks.measures.explained import Explained
from benchmarks.measures.registry import MEASURES
from benchmarks.run.configuration import ConfigurationError
from benchmarks.run.loop import RunSettings, choose_measures, prepare, run
from benchmarks.run.rows import COST, Row
from captum_groupcam import GroupCAM
from captum_groupcam.methods import METHODS, MethodSpec
from captum_groupcam.models import load_model
from tests.benchmarks.run.small_runs import MEASURED, N_SAMPLES, SPECS, assert_same


def test_one_row_a_sample_method_and_measure(whole: list[Row]) -> None:
    expected = [
        (f"{index}.png:{index}", str(spec), measure)
        for index in range(N_SAMPLES)
        for spec in SPECS
        for measure in (COST, *MEASURED)
    ]
    assert [row.key for row in whole] == expected
    assert {row.target for row in whole if row.sample == "1.png:1"} == {1}
    by_key = {row.key: row for row in whole}
    assert by_key["0.png:0", "grad_cam", COST].queries == 1
    assert by_key["0.png:0", "centre", COST].scores["queries"] == 0
    assert by_key["0.png:0", "centre", "AverageDrop"].queries == 2
    # 30 x 20 of 60 x 60 pixels, and the row of input pixels that a border of the box touches
    assert by_key["0.png:0", "centre", COST].cover == pytest.approx(30 * 20 / 3600, rel=0.05)


def test_scores_are_those_of_the_measures(
    whole: list[Row], data: Path, settings: RunSettings
) -> None:
    model = load_model("squeezenet1_1", settings.weights)
    samples = list(DATASETS["folder"](data))
    inputs = to_inputs(samples, model)
    targets = torch.tensor([sample.targets[0] for sample in samples])
    maps = METHODS["grad_cam"](model.network, model.layer)(inputs, targets)
    explained = Explained(
        model.network,
        inputs,
        targets,
        maps,
        boxes=[sample.boxes for sample in samples if sample.boxes is not None],
        image_sizes=torch.tensor([sample.image_size for sample in samples]),
    )
    for measure in MEASURED:
        for score, values in MEASURES[measure](explained).items():
            found = [
                row.scores[score]
                for row in whole
                if (row.method, row.measure) == ("grad_cam", measure)
            ]
            assert found == pytest.approx(values.tolist(), abs=1e-4)


def test_an_accelerated_run_has_the_rows_of_a_plain_one(
    settings: RunSettings, whole: list[Row]
) -> None:
    with pytest.raises(ValueError, match="compiled or accelerated"):
        prepare(replace(settings, accelerated=True, compiled=True))
    folder = run(replace(settings, accelerated=True))
    assert folder is not None
    assert folder.configuration["accelerated"] is True
    assert_same(folder.rows(), whole)


def test_a_complete_run_does_nothing(settings: RunSettings) -> None:
    run(settings)
    results = settings.out / "results.parquet"
    before = results.read_bytes()
    run(settings)
    assert results.read_bytes() == before


def test_methods_measures_and_samples_may_be_added(settings: RunSettings, whole: list[Row]) -> None:
    run(replace(settings, methods=SPECS[:1], measures=MEASURED[:1], limit=2))
    run(replace(settings, methods=SPECS[1:], measures=MEASURED[:1]))
    folder = run(settings)
    assert folder is not None
    assert_same(folder.rows(), whole)


def test_halves_of_the_samples_are_runs_of_their_own(
    settings: RunSettings, whole: list[Row]
) -> None:
    halves = {}
    for samples in ("0::2", "1::2"):
        folder = run(replace(settings, samples=samples, out=settings.out / samples))
        assert folder is not None
        halves[samples] = folder.rows()
        assert folder.configuration["chosen_samples"] == samples
    assert_same(halves["0::2"], [row for row in whole if row.sample in ("0.png:0", "2.png:2")])
    assert_same(halves["1::2"], [row for row in whole if row.sample == "1.png:1"])
    with pytest.raises(ConfigurationError, match="chosen_samples: '0::2', now '1::2'"):
        run(replace(settings, samples="1::2", out=settings.out / "0::2"))


def test_a_run_without_a_choice_of_samples_says_nothing_of_it(settings: RunSettings) -> None:
    folder = run(replace(settings, methods=SPECS[:1], measures=MEASURED[1:], limit=1))
    assert folder is not None
    assert "chosen_samples" not in folder.configuration


@pytest.mark.parametrize("samples", ["", "2", "a:b", "::0", "1:2:3:4", "0:1.5"])
def test_what_is_no_slice_is_refused(samples: str, settings: RunSettings) -> None:
    with pytest.raises(ValueError, match=r"slice start:stop:step, as in 0::2 .* got '"):
        prepare(replace(settings, samples=samples))


def test_a_slice_without_samples_is_refused(settings: RunSettings) -> None:
    with pytest.raises(ValueError, match="has no samples 3:"):
        prepare(replace(settings, samples="3:"))


def test_measures_that_cannot_be_used(data: Path) -> None:
    dataset = DATASETS["folder"](data)
    assert "PointingGame" in choose_measures(None, dataset)
    without = replace(dataset, has_objects=False)
    assert "PointingGame" not in choose_measures(None, without)
    with pytest.raises(ValueError, match="PointingGame needs boxes or masks"):
        choose_measures(["PointingGame"], without)
    with pytest.raises(ValueError, match="compares samples with each other"):
        choose_measures(["quantus.Sufficiency"], dataset)
    with pytest.raises(ValueError, match="Unknown measure 'Insertion'"):
        choose_measures(["Insertion"], dataset)


def test_the_likeliest_class_is_explained(settings: RunSettings) -> None:
    evaluator, dataset = prepare(replace(settings, target="predicted"))
    sample = next(iter(dataset))
    prepared = evaluator.prepare(sample)
    scores = evaluator.model.network(prepared.inputs)[0].tolist()
    assert int(prepared.targets) == scores.index(max(scores))
    evaluator, _ = prepare(settings)
    several = replace(sample, targets=(3, 17, 500))
    assert int(evaluator.prepare(several).targets) == max(
        (3, 17, 500), key=lambda index: scores[index]
    )


def test_the_time_of_a_map_is_not_that_of_compiling(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    compile_ = torch.compile

    def backend(graph, inputs):
        events.append("compiled")
        return graph.forward

    class Watched(GroupCAM):
        def attribute(self, *arguments, n_groups: int = 32, internal_batch_size=None, **options):
            events.append("asked")
            sizes = {"n_groups": n_groups, "internal_batch_size": internal_batch_size}
            return super().attribute(*arguments, **sizes, **options)

    monkeypatch.setattr(torch, "compile", lambda *a, **k: compile_(*a, **k, backend=backend))
    monkeypatch.setitem(METHODS, "group_cam", replace(METHODS["group_cam"], explain=Watched))
    specs = [MethodSpec("group_cam", {"n_groups": 3, "internal_batch_size": 3})]
    folder = run(replace(settings, methods=specs, measures=[], limit=2, n_shown=0, compiled=True))
    assert folder is not None
    assert [row.scores["queries"] for row in folder.rows()] == [5, 5]
    before, first, second = "".join(event[0] for event in events).split("a")[1:]
    assert "c" in before
    assert not first + second  # what is timed


def test_pictures_of_the_first_samples_are_kept(settings: RunSettings) -> None:
    folder = run(replace(settings, methods=SPECS[:2], measures=MEASURED[1:]))
    assert folder is not None
    ((shown,), unreadable) = folder.gallery.samples(folder.configuration["methods"])
    assert not unreadable
    assert shown.image.size == (224, 224)
    assert shown.sample == "0.png:0"
    assert shown.boxes == [pytest.approx([10 / 60, 10 / 60, 40 / 60, 30 / 60])]
    assert list(shown.maps) == ["centre", "grad_cam"]
    model = load_model("squeezenet1_1", settings.weights)
    inputs = to_inputs(list(DATASETS["folder"](settings.root or ""))[:1], model)
    expected = METHODS["grad_cam"](model.network, model.layer)(inputs, 0)
    np.testing.assert_allclose(shown.maps["grad_cam"], expected[0, 0].numpy(), atol=1e-5)
