"""Masks of COCO files: polygons and run lengths, malformed ones too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.data import to_inputs
from benchmarks.measures.explained import Explained
from captum_groupcam.images import ImageError
from captum_groupcam.metrics.functional import resize_masks
from tests.benchmarks.data.coco_files import (
    SQUARE,
    annotation,
    coco,
    image,
    load,
    picture,
    run_lengths,
)


def test_a_mask_of_one_pixel_is_still_there_at_the_size_of_the_input(tmp_path, lite0):
    picture(tmp_path / "val2017/b.jpg", (640, 480))
    coco(
        tmp_path,
        [image(2, "b.jpg", width=640, height=480)],
        [annotation(1, 2, segmentation=run_lengths(480, 640, 101, 100))],
    )
    (one,) = load(tmp_path, "coco_masks")
    assert one.masks.nonzero().tolist() == [[100, 101]]
    inputs = to_inputs([one], lite0)
    explained = Explained(
        lite0.network,
        inputs,
        torch.tensor([0]),
        torch.rand(1, 1, *inputs.shape[2:]),
        masks=resize_masks(one.masks[None, None], inputs.shape[2:]),
    )
    assert [100 * 224 // 480, 101 * 224 // 640] in explained.objects[0, 0].nonzero().tolist()


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (run_lengths(40, 30, 5, 5), r"of a picture of \[40, 30\], height and width, .* \[30, 40\]"),
        ({"size": [29, 40], "counts": "0"}, r"of a picture of \[29, 40\]"),
        ({"counts": [0, 1200]}, "of a picture of None"),
        ({"size": [30, 40], "counts": [0, 1199]}, "add up to 1199, not to 1200"),
        ({"size": [30, 40], "counts": [-1, 1201]}, "not a number of pixels"),
        ({"size": [30, 40], "counts": ["a"]}, "not a number of pixels"),
        ({"size": [30, 40], "counts": "garbage"}, "cannot be read"),
        ({"size": [30, 40], "counts": None}, "cannot be read"),
        ([[1, 1, 6, 6]], "three corners or more"),
        ([[1, 1, 6, 1, 6, 6, 1]], "three corners or more"),
        ([SQUARE[0], [1, 1, "6", 1, 6, 6]], "three corners or more"),
        ([[1, 1, 6, 1, 6, float("nan")]], "three corners or more"),
        ([[1, 1, 1e9, 1, 6, 6]], r"a corner at 1e\+09"),
        ([[1, 1, 6, 1, 6, 6], []], "three corners or more"),
        ("polygon", "three corners or more"),
        (7, "cannot be read"),
        ([[[1, 1], [6, 1], [6, 6]]], "three corners or more"),
        ([[50, 50, 60, 50, 60, 60]], "contain no pixel"),
    ],
)
def test_a_sample_with_a_malformed_segment_fails_and_names_it(tmp_path, segment, message):
    coco(
        tmp_path,
        [image(1, "a.jpg"), image(2, "b.jpg")],
        [annotation(1, 1), annotation(7, 1, segmentation=segment), annotation(3, 2)],
        pictures=("a.jpg", "b.jpg"),
    )
    dataset = load(tmp_path, "coco_masks")
    if message == "contain no pixel":  # beside another it is none of the sample's
        assert len(list(dataset)) == 2
        return
    with pytest.warns(UserWarning, match="left out"):
        assert [one.id for one in dataset] == ["b.jpg:dog"]
    reason = dataset.failures["a.jpg:dog"]
    assert reason.startswith("annotation 7 of a.jpg: its segment cannot be read")
    with pytest.raises(ImageError, match=message):
        dataset.load("a.jpg:dog")


def test_run_lengths_compressed_or_not_and_polygons_give_the_same_mask(tmp_path):
    mask_tools = pytest.importorskip("pycocotools.mask")
    expected = np.zeros((30, 40), dtype=np.uint8)
    expected[3:9, 5:20] = 1
    compressed = mask_tools.encode(np.asfortranarray(expected))
    flat = expected.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    counts = np.diff(np.concatenate([[0], edges])).tolist()
    polygon = [5, 3, 20, 3, 20, 9, 5, 9]
    segments = [
        {"size": [30, 40], "counts": compressed["counts"].decode()},
        {"size": [30, 40], "counts": counts},
        [polygon],
        polygon,  # as VIA writes it
    ]
    for segment in segments:
        coco(tmp_path, [image(1, "a.jpg")], [annotation(1, 1, segmentation=segment, area=None)])
        (one,) = load(tmp_path, "coco_masks")
        assert np.array_equal(one.masks.numpy(), expected)


def test_without_segments_there_are_no_masks(tmp_path):
    segments = [[], None, {}, [[]]]
    those = [annotation(n, 1, segmentation=segment) for n, segment in enumerate(segments)]
    dataset = load(coco(tmp_path, [image(1, "a.jpg")], those), "coco_masks")
    assert not dataset.loaders
    assert dataset.left_out == {"no segment": 4}
