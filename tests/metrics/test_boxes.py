from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_groupcam.metrics.functional import boxes_to_masks, pointing_game, resize_masks

corner = st.integers(-8, 40).map(lambda quarters: quarters / 4)


@settings(max_examples=40, deadline=None)
@given(
    boxes=st.lists(st.tuples(corner, corner, corner, corner), max_size=3),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    image_size=st.none() | st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8])),
)
def test_a_pixel_is_marked_if_a_box_touches_it(
    boxes: list[tuple[float, ...]],
    size: tuple[int, int],
    image_size: tuple[int, int] | None,
) -> None:
    ordered = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes]
    ordered = [box for box in ordered if box[0] < box[2] and box[1] < box[3]]
    found = boxes_to_masks([torch.tensor(ordered)], size, image_size=image_size)
    assert found.shape == (1, 1, *size)
    height, width = size if image_size is None else image_size
    for y in range(size[0]):
        for x in range(size[1]):
            # The pixel in the units of the annotated image, exactly.
            left, right = (Fraction(width * edge, size[1]) for edge in (x, x + 1))
            top, bottom = (Fraction(height * edge, size[0]) for edge in (y, y + 1))
            touched = any(
                box[0] < right and left < box[2] and box[1] < bottom and top < box[3]
                for box in ordered
            )
            assert found[0, 0, y, x].item() == touched


side = st.integers(1, 9)


@settings(max_examples=40, deadline=None)
@given(old=st.tuples(side, side), new=st.tuples(side, side), data=st.data())
def test_a_mask_at_another_size_marks_what_touches_the_object(
    old: tuple[int, int], new: tuple[int, int], data: st.DataObject
) -> None:
    pixels = data.draw(st.lists(st.booleans(), min_size=old[0] * old[1], max_size=old[0] * old[1]))
    mask = torch.tensor(pixels).view(1, 1, *old)
    found = resize_masks(mask, new)
    assert found.shape == (1, 1, *new)
    for y in range(new[0]):
        for x in range(new[1]):
            touched = any(
                # The centres are nearer than half of both lengths, in twice the share of a side.
                abs(Fraction(2 * y + 1, new[0]) - Fraction(2 * v + 1, old[0]))
                < Fraction(1, new[0]) + Fraction(1, old[0])
                and abs(Fraction(2 * x + 1, new[1]) - Fraction(2 * u + 1, old[1]))
                < Fraction(1, new[1]) + Fraction(1, old[1])
                for _, _, v, u in mask.nonzero().tolist()
            )
            assert found[0, 0, y, x].item() == touched


@pytest.mark.parametrize("place", [(0, 0), (100, 101), (479, 639)])
def test_a_mask_of_one_pixel_does_not_vanish(place: tuple[int, int]) -> None:
    mask = torch.zeros(1, 1, 480, 640, dtype=torch.bool)
    mask[0, 0, place[0], place[1]] = True
    found = resize_masks(mask, (224, 224))[0, 0].nonzero().tolist()
    assert [place[0] * 224 // 480, place[1] * 224 // 640] in found
    assert len(found) <= 4  # it may lie across the corner of four


def test_the_mask_of_a_box_is_what_becomes_of_the_box() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        (y0, y1), (x0, x1) = (
            sorted((torch.randperm(side + 1, generator=generator)[:2]).tolist())
            for side in (333, 500)
        )
        mask = torch.zeros(1, 1, 333, 500, dtype=torch.bool)
        mask[..., y0:y1, x0:x1] = True
        box = torch.tensor([[x0, y0, x1, y1]])
        expected = boxes_to_masks([box], (224, 224), image_size=(333, 500))
        assert torch.equal(resize_masks(mask, (224, 224)), expected)


def test_masks_are_boolean_and_have_a_channel() -> None:
    for wrong in (torch.zeros(1, 1, 3, 3), torch.ones(3, 3, dtype=torch.bool)):
        with pytest.raises(ValueError, match="Expected masks of shape N x 1 x H x W, boolean"):
            resize_masks(wrong, (2, 2))


@pytest.mark.parametrize(
    "box", [(0, 0, float("nan"), 2), (5, 0, 3, 2), (0, 1, 2, 1), (0, 0, float("inf"), 2)]
)
def test_boxes_without_an_area_are_errors_beside_others_too(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"x0 < x1 and y0 < y1, finite .* for sample 0"):
        boxes_to_masks([torch.tensor([(0, 0, 2, 2), box])], (3, 3))


def test_each_image_may_have_a_size_of_its_own() -> None:
    box = torch.tensor([[0, 0, 2, 2]])
    found = boxes_to_masks([box, box], (4, 4), image_size=[(4, 4), (8, 2)])
    assert found.flatten(1).sum(1).tolist() == [4, 4]
    assert found[1, 0, 0].all()


def test_pointing_game_hits_what_is_marked() -> None:
    boxes = [torch.tensor([[1.2, 0.0, 3.1, 1.0], [4.0, 2.5, 4.5, 9.0]])]
    mask = boxes_to_masks(boxes, (4, 6))
    maps = torch.eye(24).view(24, 1, 4, 6)
    hits = pointing_game(maps, boxes=boxes * 24, tolerance=0)
    assert torch.equal(hits.bool(), mask.flatten())


def test_wrong_boxes_and_sizes_are_errors() -> None:
    with pytest.raises(ValueError, match=r"B x 4, got \(4,\) for sample 1"):
        boxes_to_masks([torch.zeros(0, 4), torch.zeros(4)], (3, 3))
    with pytest.raises(ValueError, match="image_size is the height and width"):
        boxes_to_masks([torch.zeros(0, 4)], (3, 3), image_size=(2.0, 3.0))
