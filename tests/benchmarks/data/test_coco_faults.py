"""COCO files with faults: each entry is a sample, or named."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data import Dataset
from tests.benchmarks.data.coco_files import annotation, coco, image, load, reasons, run_lengths


@pytest.mark.parametrize("name", ["coco", "coco_masks"])
def test_two_categories_of_one_name_and_two_images_of_one_file_are_told_apart(tmp_path, name):
    root = coco(
        tmp_path,
        [image(1, "a.jpg"), image(2, "a.jpg"), image(3, "b.jpg")],
        [annotation(1, 1, 1), annotation(2, 1, 2), annotation(3, 2, 1), annotation(4, 3, 3)],
        [{"id": 1, "name": "dog"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "cat"}],
        pictures=("a.jpg", "b.jpg"),
    )
    found = {one.id: (one.targets, one.label) for one in load(root, name, ("x", "y", "z"))}
    assert found == {
        "a.jpg (image 1):dog (1)": ((0,), "dog (1)"),
        "a.jpg (image 1):dog (2)": ((1,), "dog (2)"),
        "a.jpg (image 2):dog (1)": ((0,), "dog (1)"),
        "b.jpg:cat": ((2,), "cat"),
    }


MALFORMED_BOXES = [
    [],
    None,
    "1 1 5 5",
    {},
    [1, 1, 5],
    [1, 1, 5, 5, 5],
    [1, 1, "5", 5],
    [1, 1, None, 5],
    [1, 1, float("nan"), 5],
    [1, float("inf"), 5, 5],
    [1, 1, 10**400, 5],
    [True, 1, 5, 5],
]


def test_malformed_boxes_are_named_and_the_others_stay(tmp_path):
    wrong = [annotation(5 + place, 1, bbox=box) for place, box in enumerate(MALFORMED_BOXES)]
    wrong[1]["bbox"] = None
    empty = [
        annotation(50 + n, 1, bbox=box) for n, box in enumerate([[9, 9, -5, 5], [40, 0, 5, 5]])
    ]
    dataset = load(coco(tmp_path, [image(1, "a.jpg")], [annotation(1, 1), *wrong, *empty]))
    (one,) = dataset
    assert one.boxes.tolist() == [[1, 1, 6, 6]]
    assert dict(dataset.left_out) == {
        "bbox is not x, y, width, height": len(MALFORMED_BOXES),
        "box without area in the image": 2,
    }
    assert reasons(dataset)["bbox is not x, y, width, height"][:2] == (
        "annotation 5 of a.jpg",
        "annotation 6 of a.jpg",
    )
    (masked,) = load(tmp_path, "coco_masks")  # which goes by the segments
    assert masked.masks.sum() == 25


def test_what_belongs_to_nothing_is_named(tmp_path):
    dataset = load(
        coco(
            tmp_path,
            [
                image(1, "a.jpg"),
                image(2, None),
                image(None, "c.jpg"),
                image(4, "../"),
                image(5, "e.jpg"),
                image(5, "f.jpg"),
                image(6, "g.jpg"),
            ],
            [
                annotation(1, 1),
                annotation(2, 99),
                annotation(3, None),
                annotation(4, 1, 99),
                annotation(5, 1, None),
                annotation(None, 5),
                "dog",
                annotation(8, 1, iscrowd=1),
                annotation(9, 1, ignore=1),
            ],
        )
    )
    assert list(dataset.loaders) == ["a.jpg:dog"]
    assert reasons(dataset) == {
        "image without id or file_name": ("images[1]", "images[2]", "images[3]"),
        "images that share their id": ("e.jpg (image 5)",),
        "of an image that the file does not list": (
            "annotation 2",
            "annotation 3",
            "annotations[5]",
        ),
        "of a category that the file does not list": (
            "annotation 4 of a.jpg",
            "annotation 5 of a.jpg",
        ),
        "malformed annotation": ("annotations[6]",),
        "crowd annotation": ("annotation 8 of a.jpg",),
        "flagged to be ignored": ("annotation 9 of a.jpg",),
        "image without annotations": ("g.jpg",),
    }


def test_categories_that_cannot_be_told_apart_are_an_error(tmp_path):
    twice = [{"id": 1, "name": "dog"}, {"id": 1, "name": "cat"}]
    with pytest.raises(ValueError, match="category 1 is listed twice, as 'dog' and 'cat'"):
        load(coco(tmp_path, [], [], twice))


def test_classes_are_found_by_name_where_their_number_is_another(tmp_path):
    root = coco(tmp_path, [image(1, "a.jpg")], [annotation(1, 1, 1), annotation(2, 1, 2)])
    dataset = load(root, classes=("background", "cat", "bird"))
    assert [(one.id, one.targets) for one in dataset] == [("a.jpg:cat", (1,))]
    assert reasons(dataset) == {"no class of the network for 'dog'": ("annotation 1 of a.jpg",)}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(["coco", "coco_masks"]))
def test_whatever_stands_in_a_file_ends_in_samples_or_reasons(tmp_path_factory, data, name):
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    content = {
        "images": [image(1, "a.jpg"), image(2, "a.jpg")],
        "annotations": [annotation(1, 1), annotation(2, 2, segmentation=run_lengths(30, 40, 5, 5))],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat", "supercategory": "x"}],
    }
    content = copy.deepcopy(content)  # which shares its polygons
    place: Any = content
    while True:  # down to something that is replaced
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.integers(0, 2)) == 0:
            place[key] = data.draw(JSON)
            break
        place = inner
    coco(root, *[content[key] for key in ("images", "annotations", "categories")])
    dataset, refused = Dataset({}), ""
    try:
        dataset = load(root, name)
    except ValueError as error:
        refused = str(error)
    assert not refused or "instances_val2017.json" in refused
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [one.id for one in dataset]
    assert sorted([*found, *dataset.failures]) == sorted(dataset.loaders)
    assert all(line.isprintable() for line in dataset.left_out.lines())
