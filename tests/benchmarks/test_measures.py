"""The registry's contract for every measure, and values from independent small implementations."""

from __future__ import annotations

import dataclasses
import gc
import math
import random
import weakref

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from skimage.segmentation import slic
from torch import Tensor, nn

from benchmarks.explained import Explained
from benchmarks.measures import DEFAULT_MEASURES, MEASURES, Measure
from benchmarks.quantus_measures._calls import untied
from benchmarks.sanity_check import chosen_layers

SIZE = 16
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


def quantus(kind: str, explained: Explained) -> np.ndarray:
    (values,) = MEASURES[f"quantus.{kind}"](explained).values()
    return values.numpy()


class Additive(nn.Module):
    """Two classes: the input weighted and summed, and a constant."""

    def __init__(self, weights: Tensor, constant: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.constant = constant
        self.queries: list[Tensor] = []
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        self.queries.extend(inputs)
        score = (inputs * self.weights).sum((1, 2, 3))
        return torch.stack([score, torch.full_like(score, self.constant)], dim=1)


def gradient_map(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    with torch.enable_grad():
        inputs = inputs.clone().requires_grad_()
        model(inputs).gather(1, targets[:, None]).sum().backward()
    return inputs.grad.abs().sum(1, keepdim=True)


def conv_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(96, 5),
    ).eval()


def square(rows: slice, columns: slice, n: int = 1) -> Tensor:
    mask = torch.zeros(n, 1, SIZE, SIZE, dtype=torch.bool)
    mask[:, :, rows, columns] = True
    return mask


def explained_by_chance(n: int = 3, seed: int = 0) -> Explained:
    generator = torch.Generator().manual_seed(seed)
    return Explained(
        conv_net(),
        torch.randn(n, 3, SIZE, SIZE, generator=generator),
        torch.randint(5, (n,), generator=generator),
        torch.rand(n, 1, SIZE, SIZE, generator=generator),
        masks=square(slice(3, 9), slice(4, 12), n),
        explain=gradient_map,
        seed=7,
    )


def additive(*, baseline_weight: float = 0.0) -> Explained:
    """An object on which class 0 depends, explained by what its pixels contribute."""
    mask = square(slice(4, 8), slice(6, 10))
    weights = torch.where(mask, 1.0, baseline_weight)
    inputs = torch.where(mask, 1.0, 0.3).repeat(1, 3, 1, 1)
    inputs[:, :, 0, 0] = 0.0  # black
    model = Additive(weights / 8, constant=3.0)
    return Explained(
        model, inputs, torch.tensor([0]), weights.clamp(min=0) * inputs[:, :1], masks=mask
    )


# --- the registry ---------------------------------------------------------------------------------


def test_registry_holds_everything_and_names_agree():
    ours = {"DeletionInsertion", "DeletionInsertion.rise", "DeletionInsertion.official"}
    ours |= {"AverageDrop", "PointingGame", "PointingGame.0px"}
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
        assert sum(passes) == said * len(explained)
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


# --- values: faithfulness -------------------------------------------------------------------------


def contributions() -> Explained:
    """A linear network and the map of its exact contributions, with black at 0."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.rand(1, 1, SIZE, SIZE, generator=generator).repeat(1, 3, 1, 1)
    inputs[..., 0, 0] = 0.0
    weights = torch.rand(1, 1, SIZE, SIZE, generator=generator) - 0.3
    return Explained(Additive(weights), inputs, torch.tensor([0]), weights * inputs[:, :1])


@pytest.mark.parametrize(
    "kind", ["FaithfulnessCorrelation", "FaithfulnessEstimate", "SensitivityN"]
)
def test_contributions_of_a_linear_network_correlate_perfectly(kind):
    exact = contributions()
    assert quantus(kind, exact) == pytest.approx([1.0], abs=1e-5)
    rescaled = dataclasses.replace(exact, maps=1e-3 * exact.maps)
    assert quantus(kind, rescaled) == pytest.approx([1.0], abs=1e-5)


def test_sensitivity_n_looks_at_four_fifths_of_the_features_of_all_channels():
    exact = contributions()
    positive = dataclasses.replace(
        exact, model=Additive(exact.model.weights.abs()), maps=exact.maps.abs()
    )
    for kept, perfect in ((0.85, True), (0.5, False)):
        maps = positive.maps.clone()
        maps[maps < maps.quantile(1 - kept)] = 0.0
        (value,) = quantus("SensitivityN", dataclasses.replace(positive, maps=maps))
        assert (value > 1 - 1e-5) == perfect


def test_weights_of_a_linear_network_have_no_infidelity_at_any_scale():
    exact = contributions()
    for scale in (1.0, 40.0):
        weights = scale * exact.model.weights
        assert quantus("Infidelity", dataclasses.replace(exact, maps=weights)) == pytest.approx(
            [0.0], abs=1e-6
        )


def test_infidelity_equals_its_definition():
    explained = explained_by_chance(1)
    expected = infidelity_by_loop(explained)
    assert quantus("Infidelity", explained) == pytest.approx([expected], rel=1e-3)


def infidelity_by_loop(explained: Explained) -> float:
    x, target = explained.inputs, explained.targets[0]
    removed, drops, sums = x.clone(), [], []
    with torch.no_grad():
        whole = explained.model(x)[0, target]
        for row in range(0, SIZE, 2):
            for column in range(0, SIZE, 2):
                removed[..., row : row + 2, column : column + 2] = x.min()
                drops.append(whole - explained.model(removed)[0, target])
                sums.append((explained.maps * (x - removed)).sum())
    drops, sums = torch.stack(drops).double(), torch.stack(sums).double()
    scale = torch.linalg.lstsq(sums[:, None], drops[:, None]).solution
    return (drops - scale.squeeze() * sums).square().mean().item()


def probability(explained: Explained, images: list[Tensor]) -> np.ndarray:
    with torch.no_grad():
        scores = explained.model(torch.stack(images)).softmax(1)
    return scores[:, explained.targets[0]].double().numpy()


def test_pixel_flipping_equals_a_loop():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3))
    image, images = torch.randn(1, SIZE, SIZE), []
    explained = Explained(
        model.eval(), image[None].clone(), torch.tensor([1]), torch.rand(1, 1, SIZE, SIZE)
    )
    pixels = explained.maps.flatten().argsort(descending=True)
    for step in pixels.split(8):  # 32 steps
        image.view(-1)[step] = explained.inputs.min()
        images.append(image.clone())
    area = np.trapezoid(probability(explained, images), dx=1 / 31)
    assert quantus("PixelFlipping", explained) == pytest.approx([area], abs=1e-6)


def patches_in_order(explained: Explained) -> list[Tensor]:
    """Images with 1, 2, ... patches of 2 x 2 pixels removed, most relevant first."""
    corners = [(row, column) for row in range(0, SIZE, 2) for column in range(0, SIZE, 2)]
    relevance = [explained.maps[0, 0, r : r + 2, c : c + 2].sum().item() for r, c in corners]
    image, images = explained.inputs[0].clone(), []
    for index in np.argsort(relevance)[::-1]:
        row, column = corners[index]
        image[:, row : row + 2, column : column + 2] = explained.inputs.min()
        images.append(image.clone())
    return images


def test_region_perturbation_and_selectivity_equal_loops():
    explained = explained_by_chance(1)
    whole = probability(explained, [explained.inputs[0]])
    curve = probability(explained, patches_in_order(explained))
    assert len(curve) == 64
    aopc = np.concatenate([[0.0], whole - curve]).mean()
    assert quantus("RegionPerturbation", explained) == pytest.approx([aopc], abs=1e-6)
    area = np.trapezoid(curve, dx=1 / 63)
    assert quantus("Selectivity", explained) == pytest.approx([area], abs=1e-6)


def test_scores_are_probabilities():
    explained = explained_by_chance(1)

    class Shifted(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return explained.model(inputs) + 100.0

    shifted = dataclasses.replace(explained, model=Shifted().eval())
    for kind in ("PixelFlipping", "RegionPerturbation", "Selectivity", "IROF"):
        values = quantus(kind, explained)
        assert quantus(kind, shifted) == pytest.approx(values, rel=1e-3, abs=1e-4)
    assert (quantus("PixelFlipping", explained) < 1).all()


def test_a_softmax_module_inside_the_model_changes_nothing():
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = explained.model
            self.attention = nn.Softmax(dim=-1)  # Quantus would take it for the output's

        def forward(self, inputs: Tensor) -> Tensor:
            return self.first(inputs)

    explained = explained_by_chance(1)
    same = dataclasses.replace(explained, model=Attentive().eval())
    for kind in ("PixelFlipping", "FaithfulnessEstimate"):
        assert quantus(kind, same) == pytest.approx(quantus(kind, explained))


def test_irof_equals_a_loop():
    explained = explained_by_chance(1)
    image = explained.inputs[0]
    segments = slic(image.permute(1, 2, 0).double().numpy(), start_label=0)
    labels = np.unique(segments)
    means = [explained.maps[0, 0].numpy()[segments == label].mean() for label in labels]
    colour, images = image.mean((1, 2)), []
    for label in labels[np.argsort(means)[::-1]]:
        image = torch.where(torch.from_numpy(segments == label), colour[:, None, None], image)
        images.append(image)
    ratios = probability(explained, images) / probability(explained, [explained.inputs[0]])
    expected = len(labels) - np.trapezoid(ratios)
    assert len(labels) > 5
    assert quantus("IROF", explained) == pytest.approx([expected], rel=1e-5)


def test_road_imputes_the_top_pixels_in_all_channels():
    good = additive()
    quantus("ROAD", good)
    changed = [(image != good.inputs[0]) for image in good.model.queries]
    for share, pixels in zip(range(10, 100, 10), changed, strict=True):
        assert torch.equal(pixels.all(0), pixels.any(0))
        assert pixels.any(0).sum() == pytest.approx(SIZE * SIZE * share / 100, abs=1)
        assert pixels.any(0)[good.masks[0, 0]].all()
    # The object's neighbours are dark, so it is imputed dark.
    assert good.model.queries[0][:, good.masks[0, 0]].max() < 0.5


def test_road_keeps_the_class_while_the_object_stays():
    good = additive()
    assert quantus("ROAD", good) == pytest.approx([0.0])
    background_first = dataclasses.replace(good, maps=good.maps.max() - good.maps)
    assert quantus("ROAD", background_first) == pytest.approx([1.0])
    other_class = dataclasses.replace(good, targets=torch.tensor([1]))
    assert quantus("ROAD", other_class) == pytest.approx([1.0])


def test_sufficiency_compares_predictions_of_similar_maps():
    torch.manual_seed(0)
    left, right = square(slice(0, 16), slice(0, 6)), square(slice(0, 16), slice(10, 16))
    maps = torch.cat([left, left, left, right, right, left | right]).float()
    maps[:, :, 2:14] += 0.01 * torch.rand(6, 1, 12, SIZE)  # rows that are constant stay
    inputs = torch.ones(6, 1, SIZE, SIZE) * torch.tensor([1, 1, -1, 1, 1, 1]).view(-1, 1, 1, 1)
    samples = Explained(
        Additive(torch.ones(1, 1, SIZE, SIZE)), inputs, torch.zeros(6, dtype=torch.long), maps
    )
    # Predicted: 0 0 1 | 0 0 | 0; the last map is as far from both groups.
    strict = dataclasses.replace(MEASURES["quantus.Sufficiency"], parameters={"threshold": 0.5})
    (values,) = strict(samples).values()
    assert values.tolist() == [0.5, 0.5, 0.0, 1.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="at least two"):
        strict(samples.sample(0))
    with pytest.raises(ValueError, match="All maps are the same"):
        strict(dataclasses.replace(samples, maps=maps[:1].expand(6, -1, -1, -1)))


# --- values: ties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RelevanceRankAccuracy", "TopKIntersection", "PointingGame"])
def test_ties_are_broken_by_chance_and_not_by_position(kind):
    # All the rest is flat: what is hit by it is the mask's share of it, wherever the mask lies.
    maps = torch.ones(1, 1, SIZE, SIZE)
    maps[0, 0, 0, 0] = 0.0
    means = []
    for rows in (slice(1, 9), slice(8, 16)):
        samples = Explained(
            conv_net(),
            torch.randn(1, 3, SIZE, SIZE),
            torch.tensor([0]),
            maps,
            masks=square(rows, slice(0, 16)),
        )
        hits = [quantus(kind, dataclasses.replace(samples, seed=seed)) for seed in range(40)]
        means.append(np.mean(hits))
    assert means == pytest.approx([0.5, 0.5], abs=0.2 if kind == "PointingGame" else 0.02)


def test_breaking_ties_keeps_the_order_of_all_else():
    maps = np.random.default_rng(0).random((1, 1, 8, 8)).round(1)
    ranked = untied(maps, seed=0)
    order = np.argsort(ranked.ravel())
    assert len(np.unique(ranked)) == 64
    assert (np.diff(maps.ravel()[order]) >= 0).all()
    assert ranked == pytest.approx(maps, abs=1e-8)


# --- values: localisation and complexity ----------------------------------------------------------


def test_localisation_equals_definitions():
    explained = explained_by_chance()
    flat, inside = explained.maps.flatten(1).numpy(), explained.masks.flatten(1).numpy()
    top = np.argsort(flat, axis=1)[:, ::-1]
    for kind, k in (("RelevanceRankAccuracy", 48), ("TopKIntersection", 64)):
        expected = [inside[i][top[i, :k]].mean() for i in range(3)]
        assert quantus(kind, explained) == pytest.approx(expected)
    share = (flat * inside).sum(1) / flat.sum(1)
    assert quantus("RelevanceMassAccuracy", explained) == pytest.approx(share)
    assert quantus("AttributionLocalisation", explained) == pytest.approx(share)
    assert quantus("PointingGame", explained) == pytest.approx(
        [float(inside[i][top[i, 0]]) for i in range(3)]
    )
    pairs = [flat[i][inside[i]][:, None] > flat[i][~inside[i]] for i in range(3)]
    assert quantus("AUC", explained) == pytest.approx([pair.mean() for pair in pairs])


def test_everything_inside_is_a_share_of_one():
    everything = dataclasses.replace(
        explained_by_chance(), masks=square(slice(None), slice(None), 3)
    )
    for kind in ("AttributionLocalisation", "RelevanceMassAccuracy", "PointingGame"):
        assert quantus(kind, everything) == pytest.approx([1.0, 1.0, 1.0])


def test_complexity_equals_definitions():
    explained = explained_by_chance()
    values = explained.maps.flatten(1).double().numpy()
    differences = np.abs(values[:, :, None] - values[:, None, :]).mean((1, 2))
    assert quantus("Sparseness", explained) == pytest.approx(
        differences / (2 * values.mean(1)), rel=1e-4
    )
    shares = values / values.sum(1, keepdims=True)
    entropy = -(shares * np.log(shares)).sum(1)
    assert quantus("Complexity", explained) == pytest.approx(entropy, rel=1e-6)


# --- values: randomisation ------------------------------------------------------------------------


def test_mprt_tells_maps_that_depend_on_the_network_from_those_that_do_not():
    explained = explained_by_chance(2)

    def edges(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return inputs.diff(dim=-1, append=inputs[..., -1:]).abs().sum(1, keepdim=True)

    indifferent = dataclasses.replace(
        explained, maps=edges(explained.model, explained.inputs, explained.targets), explain=edges
    )
    assert quantus("MPRT", indifferent) == pytest.approx([1.0, 1.0])
    maps = gradient_map(explained.model, explained.inputs, explained.targets)
    values = quantus("MPRT", dataclasses.replace(explained, maps=maps))
    assert (np.abs(values) < 0.9).all()


def test_mprt_explains_the_network_with_every_layer_drawn_anew():
    explained = explained_by_chance(1)
    seen: list[dict[str, Tensor]] = []

    def explain(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return gradient_map(model, inputs, targets)

    quantus("MPRT", dataclasses.replace(explained, explain=explain))
    original, randomised = seen
    assert all(torch.equal(original[k], v) for k, v in explained.model.state_dict().items())
    assert not any(torch.equal(original[k], randomised[k]) for k in original)


def test_a_constant_map_of_a_randomised_network_resembles_nothing():
    explained = explained_by_chance(1)

    def explain(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return explained.maps if model is explained.model else torch.zeros_like(explained.maps)

    assert quantus("MPRT", dataclasses.replace(explained, explain=explain)) == [0.0]


def test_random_logit_compares_with_the_map_of_one_other_class():
    explained = dataclasses.replace(explained_by_chance(1), targets=torch.tensor([2]))
    by_class = torch.rand(5, 1, SIZE, SIZE)
    by_class[3] = 0.0

    def explain(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return by_class[targets]

    samples = dataclasses.replace(explained, maps=by_class[2:3], explain=explain)
    own, *others = (
        by_class[i, 0].numpy() / max(by_class[i].max().item(), 1e-9) for i in (2, 0, 1, 3, 4)
    )
    expected = [
        structural_similarity(
            own, other, data_range=max(own.max(), other.max()) - min(own.min(), other.min())
        )
        for other in others
    ]
    measured = {
        round(float(quantus("RandomLogit", dataclasses.replace(samples, seed=seed))[0]), 5)
        for seed in range(12)
    }
    assert measured == {round(float(value), 5) for value in expected}


def test_random_logit_of_a_map_that_ignores_the_class_is_one():
    explained = explained_by_chance(2)

    def explain(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return inputs.square().sum(1, keepdim=True)

    maps = explain(explained.model, explained.inputs, explained.targets)
    same = dataclasses.replace(explained, maps=maps, explain=explain)
    assert quantus("RandomLogit", same) == pytest.approx([1.0, 1.0])


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
