from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_groupcam.metrics.functional import boxes_to_masks, pointing_game

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
