"""Boxes inside their image, and which objects are difficult."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data._objects import inside, is_difficult


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(-8, 18)] * 4))
def test_a_box_keeps_the_pixels_that_the_image_has(corners):
    x0, y0, x1, y1 = corners
    rows, columns = np.mgrid[:7, :10]
    covered = (rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1)
    box = inside(corners, width=10, height=7)
    if box is None:
        assert not covered.any()
    else:
        assert covered[box[1] : box[3], box[0] : box[2]].all()
        assert covered.sum() == (box[2] - box[0]) * (box[3] - box[1])


@pytest.mark.parametrize(
    ("areas", "n_categories", "expected"),
    [([24.9], 2, True), ([25], 2, False), ([24.9], 1, False), ([13, 12], 3, False)],
)
def test_small_objects_beside_another_category_are_difficult(areas, n_categories, expected):
    assert is_difficult(areas, 100, n_categories) is expected
