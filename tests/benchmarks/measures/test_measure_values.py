"""Values of the measures, from independent small implementations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from skimage.segmentation import slic
from torch import Tensor, nn

from benchmarks.measures.explained import Explained
from benchmarks.measures.quantus_measures._calls import break_ties
from benchmarks.measures.registry import MEASURES
from tests.benchmarks.measures.measured import (
    SIZE,
    Additive,
    additive,
    conv_net,
    explained_by_chance,
    gradient_map,
    quantus,
    square,
)

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
    ranked = break_ties(maps, seed=0)
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
