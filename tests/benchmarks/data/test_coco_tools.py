"""COCO files with faults, and as annotation tools write them."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.data import DATASETS, Dataset, to_inputs
from benchmarks.measures.explained import Explained
from captum_groupcam.images import ImageError
from captum_groupcam.metrics.functional import resize_masks

SQUARE = [[1, 1, 6, 1, 6, 6, 1, 6]]


def picture(path: Path, size: tuple[int, int] = (40, 30), **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (7, 7, 7)).save(path, **options)


def image(key: Any, name: str, **changes: Any) -> dict[str, Any]:
    entry = {"id": key, "file_name": name, "width": 40, "height": 30} | changes
    return {name: value for name, value in entry.items() if value is not None}


def annotation(key: Any, image_id: Any, category: Any = 1, **changes: Any) -> dict[str, Any]:
    entry = {
        "id": key,
        "image_id": image_id,
        "category_id": category,
        "bbox": [1, 1, 5, 5],
        "segmentation": SQUARE,
        "area": 25,
        "iscrowd": 0,
    } | changes
    return {name: value for name, value in entry.items() if value is not None}


def write(
    path: Path,
    images: list[Any],
    annotations: list[Any],
    categories: list[Any] | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": categories or [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def coco(root: Path, *content: Any, pictures: tuple[str, ...] = ("a.jpg",)) -> Path:
    """A folder with a file in COCO's own place."""
    for name in pictures:
        picture(root / "val2017" / name)
    write(root / "annotations/instances_val2017.json", *content)
    return root


def load(root: Path, name: str = "coco", classes: tuple[str, ...] = ("dog", "cat")) -> Dataset:
    return DATASETS[name](root, list(classes))


def reasons(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {reason: dataset.left_out.names(reason) for reason in dataset.left_out}


# --- faults


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


def run_lengths(height: int, width: int, x: int, y: int) -> dict[str, Any]:
    """A mask of one pixel."""
    before = x * height + y
    return {"size": [height, width], "counts": [before, 1, height * width - before - 1]}


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


# --- as tools write it


def test_roboflow(tmp_path):
    """A folder a split, images beside their file, and a parent of all categories that is none."""
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "dog", "supercategory": "pets"},
        {"id": 2, "name": "cat", "supercategory": "pets"},
    ]
    for split, name in [("train", "t.jpg"), ("valid", "a.jpg"), ("test", "s.jpg")]:
        picture(tmp_path / split / name)
        those = [annotation(0, 0, 1, segmentation=[]), annotation(1, 0, 2, segmentation=[])]
        write(tmp_path / split / "_annotations.coco.json", [image(0, name)], those, categories)
    dataset = load(tmp_path, classes=("class 0", "class 1"))
    assert {one.id: one.targets for one in dataset} == {"a.jpg:dog": (0,), "a.jpg:cat": (1,)}
    (note,) = dataset.notes
    assert "valid" in note
    of_three = load(tmp_path, classes=("class 0", "class 1", "class 2"))  # trained with the parent
    assert {one.targets for one in of_three} == {(1,), (2,)}
    one_split = load(tmp_path / "train/_annotations.coco.json", classes=("class 0", "class 1"))
    assert [one.id for one in one_split] == ["t.jpg:dog", "t.jpg:cat"]


@pytest.mark.parametrize("sub", ["", "default/"])
def test_cvat(tmp_path, sub):
    picture(tmp_path / f"images/{sub}a.jpg")
    write(
        tmp_path / "annotations/instances_default.json",
        [image(1, "a.jpg", license=0, flickr_url="", coco_url="", date_captured=0)],
        [annotation(1, 1, attributes={"occluded": False})],
    )
    assert [one.id for one in load(tmp_path)] == ["a.jpg:dog"]


@pytest.mark.parametrize(
    "name",
    [
        "images/a.jpg",
        "images\\a.jpg",
        "../../label-studio/data/media/upload/1/images/a.jpg",
        "/home/somebody/project/images/a.jpg",
        "C:\\Users\\somebody\\images\\a.jpg",
        "./images/a.jpg",
        "a.jpg",
    ],
)
def test_label_studio_and_names_from_another_machine(tmp_path, name):
    """Ids from 0, a file of any name, images below it."""
    picture(tmp_path / "images/a.jpg")
    write(
        tmp_path / "result.json",
        [image(0, name)],
        [annotation(0, 0, 0, segmentation=[], ignore=0), annotation(1, 0, 1, segmentation=[])],
        [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}],
    )
    (tmp_path / "config.json").write_text("{}")
    for root in (tmp_path, tmp_path / "result.json"):
        dataset = load(root)
        assert [one.targets for one in dataset] == [(0,), (1,)]
        assert not dataset.failures


def test_via_writes_ids_as_text(tmp_path):
    picture(tmp_path / "a.jpg")
    write(
        tmp_path / "via_export_coco.json",
        [image(1, "a.jpg"), image("10", "b.jpg"), image("x", "c.jpg")],
        [annotation("1", "1", segmentation=SQUARE[0]), annotation("2", 10, 2.0)],
    )
    assert list(load(tmp_path).loaders) == ["a.jpg:dog", "b.jpg:cat"]
    (one,) = load(tmp_path, "coco_masks").limit(1)
    assert one.masks.sum() == 25


@pytest.mark.parametrize(("folder", "name"), [("data", "a.jpg"), ("JPEGImages", "a.jpg")])
def test_fiftyone_and_labelme(tmp_path, folder, name):
    picture(tmp_path / folder / "a.jpg")
    write(tmp_path / "labels.json", [image(1, name)], [annotation(1, 1)])
    assert [one.id for one in load(tmp_path)] == ["a.jpg:dog"]


def test_images_in_several_folders_are_found_by_name(tmp_path):
    for place in ("day/one/a.jpg", "day/two/b.jpg", "night/b.jpg"):
        picture(tmp_path / place)
    write(
        tmp_path / "all.json",
        [image(1, "a.jpg"), image(2, "two/b.jpg"), image(3, "b.jpg"), image(4, "c.jpg")],
        [annotation(n, n) for n in (1, 2, 3, 4)],
    )
    dataset = load(tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        found = {one.id: one.file for one in dataset}
    assert found == {
        "a.jpg:dog": tmp_path / "day/one/a.jpg",
        "two/b.jpg:dog": tmp_path / "day/two/b.jpg",
    }
    assert "several pictures may be meant" in dataset.failures["b.jpg:dog"]
    assert "no such picture" in dataset.failures["c.jpg:dog"]


def test_sizes_that_are_not_given_are_those_of_the_pictures(tmp_path):
    root = coco(
        tmp_path,
        [image(1, "a.jpg", width=None), image(2, "b.jpg", height=0), image(3, "c.jpg", width="40")],
        [annotation(n, n, bbox=[30, 20, 50, 50], area=None) for n in (1, 2, 3)],
        pictures=("a.jpg", "c.jpg"),
    )
    dataset = load(root)
    with pytest.warns(UserWarning, match="left out"):
        found = {one.id: one.boxes.tolist() for one in dataset}
    assert found == {key: [[30, 20, 40, 30]] for key in ("a.jpg:dog", "c.jpg:dog")}
    assert list(dataset.failures) == ["b.jpg:dog"]


def test_a_picture_that_was_annotated_as_the_camera_turned_it_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    coco(tmp_path, [image(1, "a.jpg", width=30, height=40)], [annotation(1, 1)])
    picture(tmp_path / "val2017/a.jpg", (40, 30), exif=exif)
    (one,) = load(tmp_path)
    assert one.image_size == (40, 30)
    picture(tmp_path / "val2017/a.jpg", (40, 30))
    with pytest.raises(ImageError, match="40 x 30 pixels, but the image that was annotated"):
        load(tmp_path).load("a.jpg:dog")


def test_a_byte_order_mark_does_not_matter(tmp_path):
    root = coco(tmp_path, [image(1, "a.jpg")], [annotation(1, 1)])
    table = root / "annotations/instances_val2017.json"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert len(load(root)) == 1
