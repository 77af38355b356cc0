"""COCO: files written here, and real ones read by other code."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from benchmarks.data import DATASETS
from tests.benchmarks.data.annotated import numbered, picture, samples

CATS = [(1, "person"), (17, "cat"), (18, "dog"), (25, "giraffe")]


def coco_file(root: Path, annotations: list[dict], split: str = "val2017", **changes) -> Path:
    """Images 2 (b.jpg, 40 x 30) and 1 (a.jpg, 20 x 10)."""
    for number, one in enumerate(annotations):
        one.setdefault("id", number + 1)
        one.setdefault("iscrowd", 0)
        one.setdefault("area", one["bbox"][2] * one["bbox"][3] if "bbox" in one else 1)
    content = {
        "images": [
            {"id": 2, "file_name": "b.jpg", "width": 40, "height": 30},
            {"id": 1, "file_name": "a.jpg", "width": 20, "height": 10},
        ],
        "categories": [{"id": key, "name": name} for key, name in CATS],
        "annotations": annotations,
    } | changes
    picture(root / split / "b.jpg", (40, 30), 1)
    picture(root / split / "a.jpg", (20, 10), 2)
    table = root / "annotations" / f"instances_{split}.json"
    table.parent.mkdir(exist_ok=True)
    table.write_text(json.dumps(content), encoding="utf-8")
    return table


def square(x: float, y: float, size: float) -> list[list[float]]:
    return [[x, y, x + size, y, x + size, y + size, x, y + size]]


ANNOTATIONS = [
    {
        "image_id": 2,
        "category_id": 18,
        "bbox": [30, 20, 10.5, 5],
        "segmentation": square(30, 20, 5),
    },
    {"image_id": 2, "category_id": 18, "bbox": [-2, 1, 10, 5], "segmentation": square(1, 1, 5)},
    {"image_id": 2, "category_id": 17, "bbox": [0, 0, 20, 20], "segmentation": square(0, 0, 20)},
    {"image_id": 2, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": square(0, 0, 2)},
    {"image_id": 1, "category_id": 17, "bbox": [0, 0, 2, 2], "segmentation": square(0, 0, 2)},
    {"image_id": 1, "category_id": 17, "bbox": [3, 3, 0, 2], "segmentation": square(3, 3, 2)},
    {"image_id": 1, "category_id": 17, "bbox": [9, 9, 5, 1], "iscrowd": 1},
    {"image_id": 7, "category_id": 17, "bbox": [0, 0, 5, 1]},
]


def annotations(*extra: dict) -> list[dict]:
    return [dict(one) for one in (*ANNOTATIONS, *extra)]


def test_coco_by_hand(tmp_path, capsys):
    coco_file(tmp_path, annotations())
    dataset = DATASETS["coco"](tmp_path)
    assert capsys.readouterr().out == ""
    assert dataset.has_objects
    assert dataset.left_out == {
        "no ImageNet class for 'person'": 1,
        "box without area in the image": 1,
        "crowd annotation": 1,
        "of an image that the file does not list": 1,
    }
    found = samples(dataset)
    assert list(found) == ["a.jpg:cat", "b.jpg:cat", "b.jpg:dog"]
    assert {one.label for one in found.values()} == {"cat", "dog"}
    assert found["a.jpg:cat"].targets == (281, 282, 283, 284, 285)
    assert found["a.jpg:cat"].boxes.tolist() == [[0, 0, 2, 2]]
    assert found["b.jpg:dog"].boxes.tolist() == [[30, 20, 40, 25], [0, 1, 8, 6]]
    assert found["b.jpg:dog"].boxes.dtype == torch.float64
    assert found["b.jpg:dog"].image.getpixel((0, 0))[0] < 2
    # alone in its image; 400 of 1200 pixels; 90 of them, beside a cat
    assert [one.difficult for one in found.values()] == [False, False, True]


def test_coco_masks_by_hand(tmp_path):
    coco_file(tmp_path, annotations({"image_id": 2, "category_id": 18, "bbox": [0, 0, 3, 3]}))
    dataset = DATASETS["coco_masks"](tmp_path)
    assert dataset.left_out["no segment"] == 1
    dog = samples(dataset)["b.jpg:dog"]
    expected = torch.zeros(30, 40, dtype=torch.bool)
    expected[20:25, 30:35] = expected[1:6, 1:6] = True
    assert dog.boxes is None
    assert dog.masks.equal(expected)
    assert dog.difficult


@pytest.mark.parametrize("name", ["coco", "coco_masks"])
@pytest.mark.parametrize(("n_classes", "targets"), [(4, [1, 0, 1, 2]), (91, [17, 1, 17, 18])])
def test_coco_networks_with_a_head_of_their_own(tmp_path, name, n_classes, targets):
    coco_file(tmp_path, annotations())
    dataset = DATASETS[name](tmp_path, numbered(n_classes))
    found = samples(dataset)
    assert list(found) == ["a.jpg:cat", "b.jpg:person", "b.jpg:cat", "b.jpg:dog"]
    assert [one.targets for one in found.values()] == [(index,) for index in targets]
    with pytest.raises(ValueError, match=r"instances_val2017\.json: .*21 classes.* 4 categories"):
        DATASETS[name](tmp_path, numbered(21))


def test_coco_finds_its_files(tmp_path):
    table = coco_file(tmp_path, annotations(), "val2017")
    coco_file(tmp_path, annotations()[:1], "train2017")
    assert len(DATASETS["coco"](tmp_path)) == 3  # val is meant
    assert len(DATASETS["coco"](tmp_path / "annotations/instances_train2017.json")) == 1
    coco_file(tmp_path, annotations(), "val2014")
    with pytest.raises(ValueError, match=r"several splits.*val2014\.json, .*val2017\.json"):
        DATASETS["coco"](tmp_path)
    assert len(DATASETS["coco"](table)) == 3
    (tmp_path / "images").mkdir()
    (tmp_path / "val2017").rename(tmp_path / "images/val2017")
    assert len(list(DATASETS["coco"](table))) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"not a JSON file of COCO's instances"),
        ("[]", r"not a JSON file of COCO's instances"),
        ('{"images": []}', r"not a JSON file of COCO's instances"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', r"categories\[0\] has no"),
        ("[" * 100_000, r"not a JSON file of COCO's instances"),
    ],
)
def test_a_damaged_coco_file(tmp_path, content, message):
    coco_file(tmp_path, []).write_text(content)
    with pytest.raises(ValueError, match=r"instances_val2017\.json: .*" + message):
        DATASETS["coco"](tmp_path)


def test_a_folder_that_is_no_coco(tmp_path):
    for root, message in [
        (None, "needs its folder"),
        (tmp_path / "no", "there is no folder"),
        (tmp_path, "no such file"),
    ]:
        with pytest.raises(ValueError, match=message):
            DATASETS["coco"](root)
    coco_file(tmp_path, annotations())
    shutil.rmtree(tmp_path / "val2017")
    with pytest.raises(ValueError, match=r"images of .* are not there: expected .*val2017"):
        DATASETS["coco"](tmp_path)


def test_coco_failures_are_counted(tmp_path, damaged_file):
    extra = {"image_id": 2, "category_id": 17, "bbox": [0, 0, 1, 1], "segmentation": [[1, 2]]}
    coco_file(tmp_path, annotations(extra))
    (tmp_path / "val2017/a.jpg").unlink()
    dataset = DATASETS["coco_masks"](tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        assert list(samples(dataset)) == ["b.jpg:dog"]
    assert list(dataset.failures) == ["a.jpg:cat", "b.jpg:cat"]
    assert "annotation 9 of b.jpg: its segment cannot be read" in dataset.failures["b.jpg:cat"]
    damaged_file.rename(tmp_path / "val2017/a.jpg")
    picture(tmp_path / "val2017/b.jpg", (41, 30))
    dataset = DATASETS["coco"](tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        assert not list(dataset)
    assert "cannot be read as an image" in dataset.failures["a.jpg:cat"]
    assert "41 x 30 pixels, but the image that was annotated has 40 x 30" in str(dataset.failures)


@pytest.fixture(scope="module")
def coco128(shared) -> Path:
    root = shared / "data/coco128"
    if not root.is_dir():
        pytest.skip(f"needs the images in {root}")
    return root


def test_real_coco_read_by_other_code(coco128):
    content = json.loads((coco128 / "annotations/instances_train2017.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    files = {one["id"]: one for one in content["images"]}
    boxes, segments, shown = defaultdict(list), defaultdict(list), defaultdict(set)
    for one in content["annotations"]:
        shown[one["image_id"]].add(one["category_id"])
        if not one["iscrowd"]:
            x, y, w, h = one["bbox"]
            boxes[one["image_id"], one["category_id"]].append((x, y, x + w, y + h))
            segments[one["image_id"], one["category_id"]].append(one["segmentation"])
    dataset = DATASETS["coco"](coco128, numbered(80))
    found, masked = (
        samples(dataset),
        samples(DATASETS["coco_masks"](coco128, numbered(80)).limit(60)),
    )
    order = sorted(names)
    expected = {f"{files[i]['file_name']}:{names[c]}": (i, c) for i, c in sorted(boxes)}
    assert list(found) == list(expected)
    assert dataset.left_out == {"crowd annotation": 10, "image without annotations": 2}
    assert not dataset.failures
    for name, (image, category) in expected.items():
        sample = found[name]
        width, height = files[image]["width"], files[image]["height"]
        assert sample.image_size == (height, width)
        assert sample.targets == (order.index(category),)
        corners = np.array(boxes[image, category]).clip(0, [width, height, width, height])
        np.testing.assert_allclose(sample.boxes.numpy(), corners)
        area = np.prod(corners[:, 2:] - corners[:, :2], axis=1).sum()
        assert sample.difficult == (area < width * height / 4 and len(shown[image]) > 1)
        if name in masked:
            drawn = Image.new("1", (width, height))
            for polygons in segments[image, category]:
                for polygon in polygons:
                    ImageDraw.Draw(drawn).polygon(polygon, fill=1)
            mask = masked[name].masks.numpy()
            union = (mask | np.array(drawn)).sum()
            # Pillow draws the outline, too.
            assert (mask & np.array(drawn)).sum() / union > 0.6 or union < 400
    assert len(masked) == 60


def test_real_coco_for_networks_of_imagenet(coco128):
    dataset = DATASETS["coco"](coco128)
    assert len(samples(dataset)) == len(dataset) == 257
    left_out = sum(dataset.left_out.values()) - dataset.left_out["image without annotations"]
    assert left_out + sum(len(one.boxes) for one in dataset) == 939
