from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_groupcam.metrics import PointingGame
from captum_groupcam.metrics.functional import pointing_game


def pointing_at(*points: tuple[int, int], size: tuple[int, int] = (10, 10)) -> Tensor:
    """One map with equal maxima at the points (x, y)."""
    maps = torch.zeros(1, 1, *size)
    for x, y in points:
        maps[0, 0, y, x] = 1.0
    return maps


def box(*edges: float) -> list[Tensor]:
    return [torch.tensor([edges])]


def naive_hit(saliency: Tensor, mask: Tensor, tolerance: float) -> float:
    """The definition, pixel by pixel: TorchRay's circle around each maximum."""
    height, width = saliency.shape
    rows, columns = mask.shape
    hits = []
    for i in range(height):
        for j in range(width):
            if saliency[i, j] < saliency.max():
                continue
            y, x = int((i + 0.5) * rows / height), int((j + 0.5) * columns / width)
            hit = any(
                mask[v, u] and ((u, v) == (x, y) or (u - x) ** 2 + (v - y) ** 2 < tolerance**2)
                for v in range(rows)
                for u in range(columns)
            )
            hits.append(float(hit))
    return sum(hits) / len(hits)


def test_ends_of_boxes_are_exclusive() -> None:
    hits = [
        pointing_game(pointing_at((x, 5)), boxes=box(3, 2, 7, 8), tolerance=0).item()
        for x in range(10)
    ]
    assert hits == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]


def test_tolerance_is_a_circle_of_pixels() -> None:
    # The object is the pixel (0, 0); (3, 4) is five pixels away.
    for tolerance, hit in [(4.9, 0), (5, 0), (5.1, 1)]:
        for truth in ({"boxes": box(0, 0, 1, 1)}, {"masks": pointing_at((0, 0))[0] > 0}):
            assert pointing_game(pointing_at((3, 4)), **truth, tolerance=tolerance).item() == hit
    wide = pointing_at((20, 0), size=(1, 40))
    assert pointing_game(wide, boxes=box(0, 0, 6, 1)).item() == 0  # 15 pixels from x = 5
    assert pointing_game(wide, boxes=box(0, 0, 7, 1)).item() == 1


def test_fractional_boxes_cover_what_they_touch() -> None:
    for x, hit in [(2, 0), (3, 1), (4, 1), (5, 0)]:
        maps = pointing_at((x, 0))
        assert pointing_game(maps, boxes=box(3.7, 0, 4.2, 1), tolerance=0).item() == hit


@settings(max_examples=40, deadline=None)
@given(
    map_size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    image_size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    tolerance=st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 2.3, 5.0, 15.0]),
    levels=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_equals_the_definition(
    map_size: tuple[int, int],
    image_size: tuple[int, int],
    tolerance: float,
    levels: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    samples = 3
    maps = torch.from_numpy(rng.integers(0, levels, (samples, *map_size))).float()
    height, width = image_size
    boxes, masks = [], []
    for _ in range(samples):
        corners = []
        mask = torch.zeros(image_size, dtype=torch.bool)
        for _ in range(rng.integers(1, 4)):
            x0, y0 = rng.integers(0, width), rng.integers(0, height)
            x1, y1 = rng.integers(x0 + 1, width + 1), rng.integers(y0 + 1, height + 1)
            corners.append([x0, y0, x1, y1])
            mask[y0:y1, x0:x1] = True
        boxes.append(torch.tensor(np.array(corners)))
        masks.append(mask)
    expected = [naive_hit(m, mask, tolerance) for m, mask in zip(maps, masks, strict=True)]
    by_box = pointing_game(maps, boxes=boxes, image_size=image_size, tolerance=tolerance)
    by_mask = pointing_game(maps, masks=torch.stack(masks), tolerance=tolerance)
    np.testing.assert_allclose(by_box, expected, rtol=1e-6)
    np.testing.assert_allclose(by_mask, expected, rtol=1e-6)


def test_maps_and_boxes_of_different_resolution() -> None:
    # A 2 x 4 map of an image of 200 x 100: its pixels are 50 x 50, centred at 25, 75, ...
    maps = pointing_at((2, 1), size=(2, 4))
    options = {"image_size": (100, 200), "tolerance": 0}
    assert pointing_game(maps, boxes=box(125, 75, 126, 76), **options).item() == 1
    assert pointing_game(maps, boxes=box(126, 75, 127, 76), **options).item() == 0
    # Each sample may have a size of its own.
    sizes = [(100, 200), (2, 4)]
    both = pointing_game(
        maps.expand(2, -1, -1, -1),
        boxes=box(125, 75, 126, 76) + box(2, 1, 3, 2),
        image_size=sizes,
        tolerance=0,
    )
    assert both.tolist() == [1, 1]
    masks = [torch.zeros(100, 200), torch.zeros(2, 4, dtype=torch.uint8)]
    masks[0][75, 125], masks[1][0, 0] = 1, 255
    both = pointing_game(maps.expand(2, -1, -1, -1), masks=masks, tolerance=0)
    assert both.tolist() == [1, 0]


def test_equal_maxima_count_by_expectation() -> None:
    maps = pointing_at((0, 0), (5, 5), (9, 9), (5, 6))
    assert pointing_game(maps, boxes=box(5, 5, 6, 7), tolerance=0).item() == 0.5
    constant = torch.ones(1, 10, 10)
    assert pointing_game(constant, boxes=box(0, 0, 5, 4), tolerance=0).item() == pytest.approx(0.2)


def test_random_maps_hit_as_chance_predicts() -> None:
    n, share = 1000, 0.21
    hits = pointing_game(torch.rand(n, 10, 10), boxes=box(2, 1, 9, 4) * n, tolerance=0)
    assert abs(hits.mean() - share) < 3 * (share * (1 - share) / n) ** 0.5


def test_equals_quantus_where_both_are_defined() -> None:
    quantus = pytest.importorskip("quantus")
    maps = torch.rand(12, 1, 8, 8)
    masks = torch.zeros(12, 8, 8, dtype=torch.bool)
    masks[:, 2:7, 1:5] = True
    measure = quantus.PointingGame(abs=False, normalise=False, disable_warnings=True)
    reference = measure(
        model=None,
        x_batch=np.zeros((12, 3, 8, 8)),
        y_batch=np.zeros(12, dtype=int),
        a_batch=maps.numpy(),
        s_batch=masks.unsqueeze(1).numpy(),
    )
    ours = pointing_game(maps, masks=masks, tolerance=0)
    assert ours.tolist() == [float(hit) for hit in reference]
    assert 0 < ours.sum() < 12


def test_nothing_to_hit_is_an_error() -> None:
    maps = pointing_at((1, 1)).expand(2, -1, -1, -1)
    masks = torch.ones(2, 10, 10)
    masks[1] = 0
    with pytest.raises(ValueError, match=r"mask is empty in samples \[1\]"):
        pointing_game(maps, masks=masks)
    with pytest.raises(ValueError, match="Sample 1 has no box"):
        pointing_game(maps, boxes=[*box(0, 0, 1, 1), torch.zeros(0, 4)])
    for outside in [(10, 0, 12, 4), (-3, 0, 0, 4)]:
        with pytest.raises(ValueError, match=r"lie in the image.*boxes: \[1\]"):
            pointing_game(maps, boxes=box(0, 0, 1, 1) + box(*outside))
    for wrong in [(4, 4, 4, 8), (6, 4, 4, 8), (float("nan"), 0, 4, 4)]:
        with pytest.raises(ValueError, match=r"x0 < x1 and y0 < y1, finite .* for sample 1"):
            pointing_game(maps, boxes=box(0, 0, 1, 1) + box(*wrong))


def test_errors_name_what_is_wrong() -> None:
    maps = pointing_at((1, 1))
    with pytest.raises(ValueError, match="either boxes or masks"):
        pointing_game(maps)
    with pytest.raises(ValueError, match="either boxes or masks"):
        pointing_game(maps, boxes=box(0, 0, 1, 1), masks=maps[0])
    with pytest.raises(ValueError, match="for each of 1 maps, got 2"):
        pointing_game(maps, boxes=box(0, 0, 1, 1) * 2)
    with pytest.raises(ValueError, match="B x 4"):
        pointing_game(maps, boxes=[torch.tensor([1, 2, 3, 4])])
    with pytest.raises(ValueError, match="shape H x W"):
        pointing_game(maps, masks=maps)
    with pytest.raises(ValueError, match="image_size is the height and width"):
        pointing_game(maps, boxes=box(0, 0, 1, 1), image_size=(10, 10, 3))
    with pytest.raises(ValueError, match="image_size belongs to boxes"):
        pointing_game(maps, masks=maps[0], image_size=(10, 10))
    with pytest.raises(ValueError, match="tolerance"):
        pointing_game(maps, boxes=box(0, 0, 1, 1), tolerance=-1)
    with pytest.raises(ValueError, match=r"NaN or infinite values in samples \[0\]"):
        pointing_game(maps * float("nan"), boxes=box(0, 0, 1, 1))


def filled() -> PointingGame:
    metric = PointingGame(tolerance=0)
    maps = pointing_at((0, 0)).expand(3, -1, -1, -1)
    near, far = box(0, 0, 2, 2), box(5, 5, 9, 9)
    metric.update(maps, [4, 4, 1], boxes=near + far + far, difficult=[True, False, False])
    metric.update(maps, torch.tensor([4, 1, 1]), boxes=near + near + far)
    return metric


def test_accuracies_by_class_and_over_all() -> None:
    metric = filled()
    assert {name: value.item() for name, value in metric.compute().items()} == {
        "accuracy": 0.5,
        "mean_class_accuracy": 0.5,
        "difficult_accuracy": 1.0,
        "difficult_mean_class_accuracy": 1.0,
    }
    assert metric.per_class() == pytest.approx({1: 1 / 3, 4: 2 / 3})
    assert metric.per_class(difficult=True) == {4: 1.0}
    assert filled().per_sample()["hits"].tolist() == [1, 0, 0, 1, 1, 0]

    # Classes weigh alike, however many samples they have.
    metric = PointingGame(tolerance=0)
    boxes = box(0, 0, 2, 2) * 3 + box(5, 5, 9, 9)
    metric.update(pointing_at((0, 0)).expand(4, -1, -1, -1), [0, 0, 0, 9], boxes=boxes)
    result = metric.compute()
    assert result["accuracy"].item() == 0.75
    assert result["mean_class_accuracy"].item() == 0.5
    assert "difficult_accuracy" not in result


def test_metric_contract() -> None:
    expected = filled().compute()
    for copy in (pickle.loads(pickle.dumps(filled())), filled().clone()):
        torch.testing.assert_close(copy.compute(), expected)
        copy.reset()
        assert copy.hits == []
    merged = filled()
    merged.merge_state(filled())
    assert len(merged.per_sample()["hits"]) == 12
    torch.testing.assert_close(merged.compute(), expected)
    metric = PointingGame(tolerance=0)
    batch = metric(pointing_at((0, 0)), [3], boxes=box(0, 0, 2, 2), ids=[5])
    assert batch["accuracy"].item() == 1
    metric(pointing_at((0, 0)), [3], boxes=box(0, 0, 2, 2), ids=[5])
    assert metric.per_sample()["ids"].tolist() == [5]


def test_labels_must_fit() -> None:
    metric = PointingGame()
    for labels, difficult in [([1, 2], None), ([1.5], None), ([1], [True, False])]:
        with pytest.raises(ValueError, match="an integer label"):
            metric.update(pointing_at((0, 0)), labels, boxes=box(0, 0, 2, 2), difficult=difficult)


def test_an_id_names_an_image_with_its_class() -> None:
    metric = PointingGame()
    metric.update(
        pointing_at((0, 0)).expand(2, -1, -1, -1), [501, 502], boxes=box(0, 0, 2, 2) * 2, ids=[7, 7]
    )
    with pytest.warns(UserWarning, match=r"ids \[7\] came again with another value of 'labels'"):
        metric.compute()


@pytest.mark.parametrize("tolerance", [0.0, 0.5, 1.0, 2.5, 7.0, 2000.0])
def test_masks_with_a_tolerance_against_every_pair_of_pixels(tolerance: float) -> None:
    masks = torch.rand(4, 9, 13) > 0.93
    masks[:, 0, 0] = True
    pixels = [(y, x) for y in range(9) for x in range(13)]
    for y, x in pixels[::7]:
        maps = torch.zeros(4, 9, 13)
        maps[:, y, x] = 1
        hits = pointing_game(maps, masks=masks, tolerance=tolerance)
        nearest = [
            min(math.hypot(y - v, x - u) for v, u in mask.nonzero().tolist()) for mask in masks
        ]
        assert hits.tolist() == [float(d == 0 or d < tolerance) for d in nearest]


def test_a_mask_with_nan_is_refused() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="mask of sample 0 contains NaN"):
        pointing_game(torch.rand(1, 4, 4), masks=mask)


def test_any_number_of_pixels_is_a_tolerance() -> None:
    maps = pointing_at((3, 4))
    mask = torch.zeros(1, *maps.shape[2:], dtype=torch.bool)
    mask[0, 0, 0] = True
    for truth in ({"boxes": box(0, 0, 1, 1)}, {"masks": mask}):
        for tolerance in (2000, 10**30, 1e300):
            assert pointing_game(maps, **truth, tolerance=tolerance).item() == 1
