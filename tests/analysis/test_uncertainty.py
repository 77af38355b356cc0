from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import captum_groupcam.analysis.uncertainty
from captum_groupcam import GroupCAM
from captum_groupcam.analysis.uncertainty import (
    maximum_probability,
    scored_masks,
    standard_error,
)
from captum_groupcam.masking.masks import LayerMasks
from captum_groupcam.masking.queries import merge_masks
from captum_groupcam.metrics.functional import boxes_to_masks, pointing_game
from tests.toy_networks import classifier, images, seeded


def random_masks(
    n: int = 2, groups: int = 5, *size: int, seed: int = 0
) -> tuple[LayerMasks, Tensor]:
    def draw() -> tuple[Tensor, Tensor]:
        return torch.rand(n, groups, *(size or (3, 4))), torch.randn(n, groups)

    maps, scores = seeded(draw, seed)
    return LayerMasks(maps), scores


def rendered(masks: LayerMasks, sample: int, groups: int, size: tuple[int, ...]) -> np.ndarray:
    indices = torch.arange(groups)
    return masks.render(torch.full_like(indices, sample), indices, size).double().numpy()[:, 0]


def naive_maps(
    masks: LayerMasks, scores: Tensor, sample: int, size: tuple[int, ...], n: int
) -> np.ndarray:
    """Maps of n bootstrap samples of the groups, one by one, by numpy's generator."""
    generator = np.random.default_rng(1)
    groups = scores.shape[1]
    weighted = scores[sample].double().numpy().reshape(-1, *(1 for _ in size)) * rendered(
        masks, sample, groups, size
    )
    maps = []
    for _ in range(n):
        drawn = generator.integers(groups, size=groups)
        maps.append(np.maximum(sum(weighted[group] for group in drawn), 0))
    return np.stack(maps)


@pytest.mark.parametrize("size", [(7,), (5, 6), (3, 4, 5)], ids=["1d", "2d", "3d"])
def test_standard_error_is_that_of_a_naive_bootstrap(size: tuple[int, ...]) -> None:
    masks, scores = random_masks(2, 5, *(2 for _ in size))
    errors = standard_error(masks, scores, size, n_resamples=4000)
    assert errors.shape == (2, 1, *size)
    for sample in range(2):
        expected = naive_maps(masks, scores, sample, size, 4000).std(0, ddof=1)
        # Two estimates from 4000 draws each: about 1.6 % apart, more in the tails.
        np.testing.assert_allclose(errors[sample, 0], expected, rtol=0.12, atol=0.01)


def test_maximum_probability_is_that_of_a_naive_bootstrap() -> None:
    masks, scores = random_masks()
    regions = torch.zeros(2, 1, 5, 6, dtype=torch.bool)
    regions[:, :, :3, :3] = True
    found = maximum_probability(masks, scores, regions, n_resamples=4000)
    for sample in range(2):
        maps = naive_maps(masks, scores, sample, (5, 6), 4000).reshape(4000, -1)
        highest = maps == maps.max(1, keepdims=True)
        inside = regions[sample].flatten().numpy()
        expected = ((highest & inside).sum(1) / highest.sum(1)).mean()
        assert found[sample] == pytest.approx(expected, abs=0.035)
    assert 0.02 < found.min() < found.max()


def test_the_error_of_a_sum_has_a_closed_form() -> None:
    # Without ReLU the bootstrap's variance is the sum of squared distances from the mean group.
    masks, scores = random_masks(1, 6)
    weighted = scores[0].double().numpy().reshape(-1, 1, 1) * rendered(masks, 0, 6, (5, 6))
    expected = np.sqrt(((weighted - weighted.mean(0)) ** 2).sum(0))
    found = standard_error(masks, scores, (5, 6), n_resamples=20_000, relu_attributions=False)
    np.testing.assert_allclose(found[0, 0], expected, rtol=0.05)


def test_one_group_leaves_no_doubt() -> None:
    masks, scores = random_masks(2, 1)
    scores = scores.abs()
    assert not standard_error(masks, scores, (5, 6)).any()
    boxes = [torch.tensor([[0, 0, 3, 3]]), torch.tensor([[3, 2, 6, 5]])]
    merged = merge_masks(masks, scores, (5, 6), batch_size=8)
    torch.testing.assert_close(
        maximum_probability(masks, scores, boxes_to_masks(boxes, (5, 6))),
        pointing_game(merged, boxes=boxes, tolerance=0),
    )


def test_equal_groups_leave_no_doubt() -> None:
    masks = LayerMasks(torch.rand(1, 1, 3, 4).expand(1, 8, 3, 4))
    scores = torch.full((1, 8), 0.3)
    torch.testing.assert_close(
        standard_error(masks, scores, (5, 6)), torch.zeros(1, 1, 5, 6), rtol=0, atol=1e-5
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.floats(0.1, 10.0), st.integers(1, 60))
def test_properties(seed: int, groups: int, scale: float, elements: int) -> None:
    masks, scores = random_masks(3, groups, seed=seed)
    regions = torch.zeros(3, 1, 4, 5, dtype=torch.bool)
    regions[:, :, :2] = True
    options = {"n_resamples": 20, "seed": seed}
    errors = standard_error(masks, scores, (4, 5), **options)
    inside = maximum_probability(masks, scores, regions, **options)
    assert (errors >= 0).all()
    assert ((inside >= 0) & (inside <= 1)).all()
    # What is not inside is outside, and everything is somewhere.
    torch.testing.assert_close(maximum_probability(masks, scores, ~regions, **options), 1 - inside)
    everywhere = torch.ones_like(regions)
    torch.testing.assert_close(
        maximum_probability(masks, scores, everywhere, **options), torch.ones(3)
    )
    # The unit is the map's.
    torch.testing.assert_close(
        standard_error(masks, scale * scores, (4, 5), **options),
        scale * errors,
        rtol=1e-3,
        atol=1e-5,
    )
    # A sample does not depend on its batch, nor anything on the size of the chunks.
    alone = LayerMasks(masks.maps[1:2])
    torch.testing.assert_close(standard_error(alone, scores[1:2], (4, 5), **options), errors[1:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captum_groupcam.analysis.uncertainty, "_ELEMENTS", elements)
        torch.testing.assert_close(
            standard_error(masks, scores, (4, 5), **options), errors, rtol=1e-3, atol=1e-5
        )


def test_a_resample_without_positive_values_has_its_maximum_everywhere() -> None:
    masks, scores = random_masks(1, 4)
    regions = torch.zeros(1, 1, 4, 5, dtype=torch.bool)
    regions[0, 0, 0] = True
    found = maximum_probability(masks, -scores.abs(), regions)
    torch.testing.assert_close(found, torch.tensor([0.25]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_free": True, "n_groups": 3},
        {"denoise_at": "input", "n_groups": 4},
        {"denoise_percentile": None, "relu_scores": True},
        {"attribute_to_layer_input": True, "baselines": 0.0, "score_func": torch.sigmoid},
    ],
    ids=lambda options: "-".join(options) or "defaults",
)
def test_scored_masks_are_those_that_attribute_merges(options: dict) -> None:
    network, inputs = classifier(), images(2, 16, 16)
    group_cam = GroupCAM(network, network.features[2])
    scored = scored_masks(group_cam, inputs, [1, 3], **options)
    merged = merge_masks(scored.masks, scored.scores, scored.size, batch_size=8)
    expected = group_cam.attribute(inputs, [1, 3], relu_attributions=False, **options)
    torch.testing.assert_close(merged, expected)
    masks, scores = scored.of_sample(1)
    torch.testing.assert_close((scores.view(-1, 1, 1) * masks).sum(0), merged[1, 0])
    assert merged.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, s, r: maximum_probability(m, s, r.float()), "torch.bool"),
        (lambda m, s, r: maximum_probability(m, s, r[:1]), r"\(2, 1\) x spatial"),
        (lambda m, s, r: standard_error(m, s / 0, (4, 5)), "finite scores"),
        (lambda m, s, r: standard_error(m, s, (4, 5), n_resamples=1), "at least 2"),
        (lambda m, s, r: standard_error(m, s[0], (4, 5)), "N x G"),
    ],
)
def test_bad_arguments_are_refused(call, message: str) -> None:
    masks, scores = random_masks()
    with pytest.raises(ValueError, match=message):
        call(masks, scores, torch.ones(2, 1, 4, 5, dtype=torch.bool))


@pytest.mark.parametrize(
    "measure",
    [
        lambda masks, scores: standard_error(masks, scores, (2,)),
        lambda masks, scores: maximum_probability(masks, scores, torch.tensor([[[True, False]]])),
    ],
    ids=["standard_error", "maximum_probability"],
)
@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (torch.tensor([[1, 2, 3]]), r"floating-point scores .* torch\.int64"),
        (torch.rand(1, 2), r"\(1, 3\), one for each mask, got \(1, 2\)"),
        (torch.tensor([[1.0, torch.nan, 0.0]]), "finite scores"),
    ],
    ids=["integers", "too few", "NaN"],
)
def test_scores_that_do_not_fit_are_refused(measure, scores: Tensor, message: str) -> None:
    masks = LayerMasks(torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]))
    with pytest.raises(ValueError, match=message):
        measure(masks, scores)
