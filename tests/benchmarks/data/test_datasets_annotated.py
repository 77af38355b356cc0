"""COCO, VOC and ImageNet: files written here, and real ones read by other code."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from benchmarks.data import DATASETS, Dataset
from benchmarks.data._objects import inside, is_difficult

CATS = [(1, "person"), (17, "cat"), (18, "dog"), (25, "giraffe")]


def numbered(n: int) -> list[str]:
    """Classes whose names say nothing."""
    return [f"class {index}" for index in range(n)]


def picture(path: Path, size: tuple[int, int] = (40, 30), shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade,) * 3).save(path)


def samples(dataset: Dataset) -> dict:
    return {one.id: one for one in dataset}


# --- boxes


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


# --- COCO


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


# --- VOC


def voc_xml(path: Path, objects: list[tuple], size: tuple[int, int] = (40, 30)) -> None:
    parts = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin>"
        f"<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>"
        "</bndbox></part></object>"
        for name, difficult, x0, y0, x1, y1 in objects
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        f"{parts}</annotation>"
    )


def voc_folder(root: Path, files: dict[str, list[tuple]], year: str = "2012", split: str = "val"):
    folder = root / "VOCdevkit" / f"VOC{year}"
    for stem, objects in files.items():
        picture(folder / "JPEGImages" / f"{stem}.jpg")
        voc_xml(folder / "Annotations" / f"{stem}.xml", objects)
    (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(files) + "\n")
    return folder


VOC_FILES = {
    "b": [
        ("dog", 0, 1, 1, 40, 30),
        ("dog", 1, 2.5, 3, 4, 5),
        ("cat", 1, 1, 1, 9, 9),
        ("cat", 1, 1, 1, 8, 8),
        ("person", 0, 1, 1, 3, 3),
    ],
    "a": [("sofa", 0, 31, 21, 44, 30), ("sofa", 0, 50, 1, 55, 9), ("dog", 1, 1, 1, 2, 2)],
}


def test_voc_by_hand(tmp_path):
    voc_folder(tmp_path, VOC_FILES)
    dataset = DATASETS["voc"](tmp_path)
    flagged = "of a class whose objects in the image are all flagged difficult"
    assert dataset.left_out == {
        flagged: 3,
        "no ImageNet class for 'person'": 1,
        "box without area in the image": 1,
    }
    found = samples(dataset)
    assert list(found) == ["b:dog", "a:sofa"]
    assert found["b:dog"].boxes.tolist() == [[0, 0, 40, 30], [1.5, 2, 4, 5]]
    assert found["a:sofa"].boxes.tolist() == [[30, 20, 40, 30]]
    assert (found["a:sofa"].targets, found["a:sofa"].label) == ((831,), "sofa")
    assert [one.difficult for one in found.values()] == [False, True]
    own = samples(DATASETS["voc"](tmp_path, numbered(20)))
    assert {name: one.targets for name, one in own.items()} == {
        "b:dog": (11,),
        "b:person": (14,),
        "a:sofa": (17,),
    }
    with pytest.raises(ValueError, match=r"21 classes, .* but the data set has 20"):
        DATASETS["voc"](tmp_path, numbered(21))


def test_voc_year_and_split(tmp_path):
    one = voc_folder(tmp_path, {"a": VOC_FILES["a"]}, "2007", "val")
    assert list(DATASETS["voc"](tmp_path).loaders) == ["a:sofa"]
    voc_folder(tmp_path, {"b": VOC_FILES["b"]}, "2007", "test")
    assert list(DATASETS["voc"](str(tmp_path)).loaders) == ["b:dog"]
    assert list(DATASETS["voc"](tmp_path / "VOCdevkit").loaders) == ["b:dog"]
    voc_folder(tmp_path, {"a": VOC_FILES["a"]}, "2012")
    with pytest.raises(ValueError, match=r"several years: .*VOC2007, .*VOC2012"):
        DATASETS["voc"](tmp_path)
    assert list(DATASETS["voc"](one).loaders) == ["b:dog"]


def test_voc_failures_are_counted(tmp_path):
    folder = voc_folder(tmp_path, VOC_FILES | {"c": [("dog", 0, 1, 1, 2, 2)], "d": [], "e": []})
    (folder / "JPEGImages/b.jpg").write_bytes(b"no image")
    (folder / "Annotations/a.xml").unlink()
    voc_xml(folder / "Annotations/c.xml", [("dog", 0, 1, 1, 2, 2)], (41, 30))
    (folder / "Annotations/d.xml").write_text("<annotation><size>")
    (folder / "Annotations/e.xml").write_text("<annotation><object/></annotation>")
    dataset = DATASETS["voc"](tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        assert not list(dataset)
    assert list(dataset.failures) == ["b:dog", "a", "c:dog", "d", "e"]
    reasons = list(dataset.failures.values())
    for reason, part in zip(
        reasons,
        ["as an image", "no such annot", "41 x 30", "no element", "has no name"],
        strict=True,
    ):
        assert part in reason


def test_a_folder_that_is_no_voc(tmp_path):
    with pytest.raises(ValueError, match="there is none below"):
        DATASETS["voc"](tmp_path)
    voc_folder(tmp_path, {"a": [("unicorn", 0, 1, 1, 2, 2)]})
    with pytest.raises(ValueError, match=r"a\.xml: VOC has no class 'unicorn'"):
        DATASETS["voc"](tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Main/val.txt").unlink()
    with pytest.raises(ValueError, match="VOC 2012, split val, cannot be read"):
        DATASETS["voc"](tmp_path)


def test_real_voc_read_by_other_code(shared):
    root = shared / "data/voc2012_sample"
    if not root.is_dir():
        pytest.skip(f"needs the images in {root}")
    dataset = DATASETS["voc"](root, numbered(20))
    found = samples(dataset)
    flagged = 0
    expected = {}
    folder = root / "VOCdevkit/VOC2012"
    for stem in (folder / "ImageSets/Main/val.txt").read_text().split():
        tree = ElementTree.parse(folder / f"Annotations/{stem}.xml")
        objects = defaultdict(list)
        for one in tree.iter("object"):
            box = {corner.tag: float(corner.text) for corner in one.find("bndbox")}
            corners = [box["xmin"] - 1, box["ymin"] - 1, box["xmax"], box["ymax"]]
            objects[one.find("name").text].append((one.find("difficult").text == "1", corners))
        for label, those in objects.items():
            if all(difficult for difficult, _ in those):
                flagged += len(those)
            else:
                expected[f"{stem}:{label}"] = [corners for _, corners in those]
    assert not dataset.failures
    assert {name: one.boxes.tolist() for name, one in found.items()} == expected
    assert sum(dataset.left_out.values()) == flagged
    assert {one.targets[0] for one in found.values()} == set(range(20))


# --- ImageNet


def imagenet_folder(root: Path) -> Path:
    for wnid, names in {"n01443537": "ab", "n01440764": "dc", "n02102040": "e"}.items():
        for name in names:
            picture(root / wnid / f"{name}.JPEG")
    return root


ORDER = ["n01440764/c", "n01443537/a", "n02102040/e", "n01440764/d", "n01443537/b"]


@pytest.mark.parametrize("below", ["", "val"])
def test_imagenet_by_hand(tmp_path, below):
    imagenet_folder(tmp_path / below)
    (tmp_path / below / "n02102040" / ".hidden.JPEG").touch()
    dataset = DATASETS["imagenet"](tmp_path)
    assert not dataset.has_objects
    assert list(samples(dataset)) == [f"{name}.JPEG" for name in ORDER]  # classes take turns
    assert [one.targets for one in dataset] == [(0,), (1,), (217,), (0,), (1,)]
    assert {one.label for one in dataset.limit(3)} == {"n01440764", "n01443537", "n02102040"}
    assert all(one.boxes is None for one in dataset)
    assert [one.targets for one in DATASETS["imagenet"](tmp_path, numbered(3)).limit(3)] == [
        (0,),
        (1,),
        (2,),
    ]


@pytest.mark.parametrize("place", ["bbox/val", "ILSVRC/Annotations/CLS-LOC/val"])
def test_imagenet_boxes(tmp_path, place):
    imagenet_folder(tmp_path)
    xml = tmp_path / place
    goldfish = "n01443537"
    voc_xml(xml / "a.xml", [(goldfish, 0, 0, 3, 39, 29), ("n1", 0, 1, 1, 2, 2)])
    voc_xml(xml / "b.xml", [(goldfish, 0, 10, 10, 10, 10), (goldfish, 0, 2, 3, 45, 29)])
    voc_xml(xml / "c.xml", [("n1", 0, 1, 1, 2, 2)])
    voc_xml(xml / "d.xml", [("n01440764", 0, 1, 1, 2, 2)], (500, 375))
    dataset = DATASETS["imagenet"](tmp_path)
    assert dataset.has_objects
    with pytest.warns(UserWarning, match="left out"):
        found = samples(dataset)
    assert {name: one.boxes.tolist() for name, one in found.items()} == {
        "n01443537/a.JPEG": [[0, 3, 40, 30]],
        "n01443537/b.JPEG": [[10, 10, 11, 11], [2, 3, 40, 30]],
    }
    assert "no object of the class n01440764" in dataset.failures["n01440764/c.JPEG"]
    assert "40 x 30 pixels, but" in dataset.failures["n01440764/d.JPEG"]
    assert "no such annotation file" in dataset.failures["n02102040/e.JPEG"]


def test_a_folder_that_is_no_imagenet(tmp_path):
    with pytest.raises(ValueError, match="there is no image below"):
        DATASETS["imagenet"](tmp_path)
    imagenet_folder(tmp_path)
    with pytest.raises(ValueError, match=r"10 classes, .* 3 categories"):
        DATASETS["imagenet"](tmp_path, numbered(10))
    picture(tmp_path / "cats/x.JPEG")
    with pytest.raises(ValueError, match=r"cats is not a class of ImageNet"):
        DATASETS["imagenet"](tmp_path)


def test_the_network_knows_real_imagenet(shared, lite0):
    root = shared / "data/imagenette_small"
    if not root.is_dir():
        pytest.skip(f"needs the images in {root}")
    dataset = DATASETS["imagenet"](root)
    assert len(dataset) == len(list(root.glob("val/*/*.JPEG"))) == 400
    first = list(dataset.limit(20))
    assert len({one.label for one in first}) == 10
    with torch.no_grad():
        predicted = lite0.network(torch.stack([lite0.preprocess(one.image) for one in first]))
    right = predicted.argmax(1) == torch.tensor([one.targets[0] for one in first])
    assert right.float().mean() > 0.7
