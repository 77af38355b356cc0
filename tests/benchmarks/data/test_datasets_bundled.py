from __future__ import annotations

import pytest
import torch

from benchmarks.data import DATASETS, to_inputs


@pytest.fixture(scope="module")
def bundled():
    return list(DATASETS["bundled"]())


def test_boxes_lie_in_their_images(bundled):
    assert 8 <= len(bundled) <= 12
    assert len({one.id for one in bundled}) == len(bundled)
    for one in bundled:
        height, width = one.image_size
        x0, y0, x1, y1 = one.boxes.unbind(1)
        assert ((x0 >= 0) & (x0 < x1) & (x1 <= width)).all()
        assert ((y0 >= 0) & (y0 < y1) & (y1 <= height)).all()


def test_labels_are_plausible_to_the_network(bundled, lite0):
    with torch.no_grad():
        scores = lite0.network(to_inputs(bundled, lite0))
    for one, row in zip(bundled, scores, strict=True):
        rank = int((row > row[list(one.targets)].max()).sum())
        assert rank < 50, (one.id, rank)  # of 1000 classes


def test_objects_are_where_the_boxes_are(bundled, lite0):
    """Hidden, they are harder to recognise: on average, and for most."""
    hidden = []
    for one in bundled:
        image = one.image.copy()
        for x0, y0, x1, y1 in one.boxes.int().tolist():
            image.paste((128, 128, 128), (x0, y0, x1, y1))
        hidden.append(type(one)(one.id, image, one.targets, one.label))
    with torch.no_grad():
        shown = lite0.network(to_inputs(bundled, lite0)).log_softmax(1)
        without = lite0.network(to_inputs(hidden, lite0)).log_softmax(1)
    drops = torch.tensor(
        [
            float(a[list(one.targets)].max() - b[list(one.targets)].max())
            for one, a, b in zip(bundled, shown, without, strict=True)
        ]
    )
    assert drops.mean() > 1
    assert (drops > 0).float().mean() > 0.8


def test_a_network_of_other_classes():
    with pytest.raises(ValueError, match="ImageNet's 1000 classes, but the network has 80"):
        DATASETS["bundled"](None, ["a class"] * 80)
