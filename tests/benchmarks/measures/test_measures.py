"""The registry's contract for every measure: what it gives, leaves alone, and refuses."""

from __future__ import annotations

import dataclasses
import gc
import math
import random
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.measures.explained import Explained
from benchmarks.measures.randomisation import chosen_layers
from benchmarks.measures.registry import DEFAULT_MEASURES, MEASURES, Measure
from tests.benchmarks.measures.measured import (
    SIZE,
    Additive,
    additive,
    explained_by_chance,
    gradient_map,
    quantus,
    square,
)

QUANTUS = {
    "faithfulness": (
        "FaithfulnessCorrelation",
        "FaithfulnessEstimate",
        "MonotonicityCorrelation",
        "PixelFlipping",
        "RegionPerturbation",
        "Selectivity",
        "SensitivityN",
        "IROF",
        "ROAD",
        "Infidelity",
        "Sufficiency",
    ),
    "localisation": (
        "PointingGame",
        "AttributionLocalisation",
        "TopKIntersection",
        "RelevanceRankAccuracy",
        "RelevanceMassAccuracy",
        "AUC",
    ),
    "complexity": ("Sparseness", "Complexity"),
    "randomisation": ("MPRT", "RandomLogit"),
}
every_measure = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())


def needing(*needs: str) -> pytest.MarkDecorator:
    chosen = [m for m in MEASURES.values() if m.needs & set(needs)]
    return pytest.mark.parametrize("measure", chosen, ids=[m.name for m in chosen])


# --- the registry ---------------------------------------------------------------------------------


def test_registry_holds_everything_and_names_agree():
    ours = {"DeletionInsertion", "DeletionInsertion.rise", "DeletionInsertion.official"}
    ours |= {"AverageDrop", "PointingGame", "PointingGame.0px"}
    ours |= {"GridPointingGame", "PlantedEvidence", "MaxSensitivity", "Agreement", "ADCC"}
    ours |= {"ParameterRandomisation.cascading", "ParameterRandomisation.independent"}
    theirs = {f"quantus.{kind}": category for category in QUANTUS for kind in QUANTUS[category]}
    assert set(MEASURES) == ours | set(theirs)
    assert {name: MEASURES[name].category for name in theirs} == theirs
    assert all(measure.name == name for name, measure in MEASURES.items())
    scores = [score for measure in MEASURES.values() for score in measure.higher_is_better]
    assert len(scores) == len(set(scores))
    assert all(measure.source and measure.description for measure in MEASURES.values())
    assert set(DEFAULT_MEASURES) <= set(MEASURES)


@every_measure
def test_one_finite_float_a_sample_the_same_each_time_and_nothing_else_changes(measure):
    explained = explained_by_chance(2)
    kept = {
        name: getattr(explained, name).clone() for name in ("inputs", "targets", "maps", "masks")
    }
    parameters = {k: v.clone() for k, v in explained.model.state_dict().items()}
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    python_state = random.getstate()

    first = measure(explained)

    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert all(torch.equal(getattr(explained, name), value) for name, value in kept.items())
    assert all(torch.equal(parameters[k], v) for k, v in explained.model.state_dict().items())
    assert not explained.model.training

    assert list(first) == list(measure.higher_is_better)
    for values in first.values():
        assert values.shape == (2,)
        assert values.dtype == torch.float64
        assert values.isfinite().all()
    np.random.seed(99)  # noqa: NPY002
    torch.manual_seed(99)
    again = measure(explained)
    assert all(torch.equal(again[name], values) for name, values in first.items())


@pytest.mark.parametrize(
    "measure", [m for m in MEASURES.values() if "batch" not in m.needs], ids=lambda m: m.name
)
def test_a_batch_is_its_samples_one_at_a_time(measure):
    explained = explained_by_chance(2)
    alone = [measure(explained.sample(index)) for index in range(2)]
    for name, values in measure(explained).items():
        expected = torch.cat([one[name] for one in alone])
        # A batch rounds otherwise, and a percentage of a small probability shows it.
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


@every_measure
def test_queries_and_explanations_are_as_many_as_said(measure):
    explained = dataclasses.replace(explained_by_chance(1), explain=None)
    if "batch" in measure.needs:
        explained = explained_by_chance(2)
    passes, explanations = [], []
    explained.model.register_forward_hook(lambda *call: passes.append(len(call[1][0])))

    def explain(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        explanations.append(1)
        return inputs.mean(1, keepdim=True)

    measure(dataclasses.replace(explained, explain=explain))
    said = measure.queries((3, SIZE, SIZE))
    if measure.name == "quantus.IROF":
        assert sum(passes) <= said  # the segments of so small an image are fewer
    else:
        asked_alone = measure.name.startswith("DeletionInsertion") and said >= 100  # a row
        assert sum(passes) == said * len(explained) + asked_alone
    expected = measure.explanations
    if measure.name.startswith("ParameterRandomisation"):
        # one for each layer with parameters, if there are no more
        expected = len(chosen_layers(explained.model, measure.explanations))
    assert len(explanations) == expected
    assert bool(said) <= ("model" in measure.needs)


@pytest.mark.parametrize(
    "measure",
    [m for m in MEASURES.values() if not m.needs & {"batch", "explain"}],
    ids=lambda m: m.name,
)
def test_the_true_map_beats_its_inverse(measure):
    # A little evidence against the class lies outside the object: hiding it raises the score.
    good = additive(baseline_weight=-0.01)
    bad = dataclasses.replace(good, maps=good.maps.max() - good.maps)
    if measure.name == "PointingGame":  # the tolerance of 15 pixels covers the image
        measure = dataclasses.replace(measure, parameters={"tolerance": 2.0})
    better, worse = measure(good), measure(bad)
    for name, higher in measure.higher_is_better.items():
        difference = better[name] - worse[name]
        assert (difference if higher else -difference).item() > 0, name


def test_measures_work_in_double_precision_and_on_one_channel():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 3)).double().eval()
    explained = Explained(
        model,
        torch.randn(2, 1, SIZE, SIZE, generator=generator, dtype=torch.float64),
        torch.tensor([0, 2]),
        torch.rand(2, 1, SIZE, SIZE, generator=generator, dtype=torch.float64),
        masks=square(slice(3, 9), slice(4, 12), 2),
        explain=gradient_map,
    )
    for measure in MEASURES.values():
        assert all(values.isfinite().all() for values in measure(explained).values()), measure.name


def test_a_measured_model_can_be_forgotten():
    explained = explained_by_chance(1)
    quantus("FaithfulnessCorrelation", explained)
    model = weakref.ref(explained.model)
    del explained
    gc.collect()
    assert model() is None


# --- errors ---------------------------------------------------------------------------------------


@needing("objects")
def test_missing_objects_are_an_error(measure):
    without = dataclasses.replace(explained_by_chance(), masks=None)
    with pytest.raises(ValueError, match="needs masks or boxes"):
        measure(without)


@needing("explain")
def test_a_missing_explain_function_is_an_error(measure):
    without = dataclasses.replace(explained_by_chance(), explain=None)
    with pytest.raises(ValueError, match="needs an explain function"):
        measure(without)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda e: (e.maps[1].fill_(math.nan), {})[1], ValueError, r"Sample \[1\] has NaN"),
        (lambda e: (e.masks[2].fill_(False), {})[1], ValueError, r"Sample \[2\] has no object"),
        (lambda e: (e.model.train(), {})[1], ValueError, r"call model.eval\(\)"),
        (lambda e: {"maps": e.maps[:, :, :8]}, ValueError, r"maps of shape \(3, 1, 16, 16\)"),
        (lambda e: {"maps": e.maps.repeat(1, 3, 1, 1)}, ValueError, "maps of shape"),
        (lambda e: {"inputs": e.inputs[0]}, ValueError, "N x C x H x W"),
        (lambda e: {"targets": e.targets[:2]}, ValueError, "Expected 3 targets"),
        (lambda e: {"targets": e.targets.float()}, TypeError, "class indices"),
        (lambda e: {"targets": torch.tensor([0, 1, -1])}, ValueError, r"Sample \[2\] has a neg"),
        (lambda e: {"seed": -1}, ValueError, "Expected a seed"),
        (lambda e: {"masks": e.masks.float()}, TypeError, "Masks are boolean"),
        (lambda e: {"masks": e.masks[:2]}, ValueError, "masks of shape"),
        (lambda e: {"boxes": []}, ValueError, "masks or boxes, not both"),
        (lambda e: {"masks": None, "boxes": []}, ValueError, "boxes for 3 samples, got 0"),
        (lambda e: {"image_sizes": torch.ones(3, 2)}, ValueError, "image_sizes go with boxes"),
        (
            lambda e: {
                "masks": None,
                "boxes": [torch.tensor([[0, 0, 3, 3]])] * 2 + [torch.ones(0)],
            },
            ValueError,
            r"Sample \[2\] has no object",
        ),
        (
            lambda e: {
                "masks": None,
                "boxes": [torch.tensor([[20, 0, 23, 3]])] + [torch.tensor([[0, 0, 3, 3]])] * 2,
            },
            ValueError,
            r"Sample \[0\] has no object",
        ),
    ],
)
def test_wrong_samples_are_errors(change, error, message):
    explained = explained_by_chance()
    with pytest.raises(error, match=message):
        dataclasses.replace(explained, **change(explained))


@pytest.mark.parametrize(
    "name", [name for name in MEASURES if name.startswith("quantus.")], ids=lambda name: name
)
def test_maps_that_quantus_cannot_measure_are_named(name):
    explained = explained_by_chance()
    explained.maps[1] = 0.5
    with pytest.raises(ValueError, match=r"Sample \[1\] has a constant map"):
        MEASURES[name](explained)
    explained.maps[1] = -torch.rand(SIZE, SIZE) - 0.1
    with pytest.raises(ValueError, match=r"Sample \[1\] has only negative values"):
        MEASURES[name](explained)


@pytest.mark.parametrize(
    "kind",
    ["FaithfulnessCorrelation", "FaithfulnessEstimate", "MonotonicityCorrelation", "SensitivityN"],
)
def test_a_correlation_with_a_network_that_does_not_respond_is_an_error(kind):
    good = additive()
    dead = dataclasses.replace(good, model=Additive(torch.zeros(1, 1, SIZE, SIZE)))
    with pytest.raises(ValueError, match=rf"{kind} is undefined for sample \[0\]: the network's"):
        quantus(kind, dead)


def test_auc_of_a_mask_without_outside_is_an_error():
    explained = explained_by_chance()
    explained.masks[1] = True
    with pytest.raises(ValueError, match=r"AUC is undefined for sample \[1\]: its mask covers"):
        quantus("AUC", explained)


def test_targets_beyond_the_classes_and_nan_scores_are_errors():
    explained = explained_by_chance()
    with pytest.raises(ValueError, match=r"with a class 5, got \(1, 5\)"):
        quantus("PixelFlipping", dataclasses.replace(explained, targets=torch.tensor([0, 5, 1])))
    broken = Additive(torch.full((1, 1, SIZE, SIZE), math.nan))
    with pytest.raises(ValueError, match="NaN or infinite scores"):
        quantus("ROAD", dataclasses.replace(additive(), model=broken))


# --- where the objects are ------------------------------------------------------------------------


@needing("objects")
def test_boxes_and_masks_of_them_agree(measure):
    boxes = [torch.tensor([[4, 3, 12, 9]]), torch.tensor([[0, 0, 2, 2], [9, 9, 99, 14]])]
    masks = torch.cat([square(slice(3, 9), slice(4, 12)), square(slice(0, 2), slice(0, 2))])
    masks |= torch.cat([square(slice(0, 0), slice(0)), square(slice(9, 14), slice(9, 16))])
    with_masks = dataclasses.replace(explained_by_chance(2), masks=masks)
    with_boxes = dataclasses.replace(with_masks, masks=None, boxes=boxes)
    assert measure(with_boxes) == {k: pytest.approx(v) for k, v in measure(with_masks).items()}


def test_boxes_of_another_image_size_are_scaled_and_tolerance_counts_its_pixels():
    explained = explained_by_chance(1)
    sizes = torch.tensor([[160, 320]])  # height, width
    at_ten, at_input = torch.tensor([[80, 30, 241, 90]]), torch.tensor([[4, 3, 13, 9]])
    large = dataclasses.replace(explained, masks=None, boxes=[at_ten], image_sizes=sizes)
    small = dataclasses.replace(explained, masks=None, boxes=[at_input])
    assert torch.equal(large.objects, small.objects)
    assert large.objects.sum() == 9 * 6

    peak = torch.zeros(1, 1, SIZE, SIZE)
    peak[0, 0, 5, 2] = 1.0  # x = 50 of 320, 30 from the box; x = 2 of 16, 2 from the box
    for samples, hit in ((large, 0.0), (small, 1.0)):
        result = MEASURES["PointingGame"](dataclasses.replace(samples, maps=peak))
        assert result["pointing_game"].item() == hit


def test_a_broken_explain_function_is_an_error():
    explained = dataclasses.replace(
        explained_by_chance(1), explain=lambda model, x, t: x.mean(1, keepdim=True) * math.nan
    )
    for kind in ("MPRT", "RandomLogit"):
        with pytest.raises(ValueError, match="NaN or infinite values in its map"):
            quantus(kind, explained)


def test_measure_is_a_record():
    measure = MEASURES["quantus.ROAD"]
    assert isinstance(measure, Measure)
    with pytest.raises(dataclasses.FrozenInstanceError):
        measure.name = "other"
