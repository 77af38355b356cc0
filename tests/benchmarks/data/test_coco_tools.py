"""COCO files as annotation tools write them."""

from __future__ import annotations

import pytest
from PIL import Image

from captum_groupcam.images import ImageError
from tests.benchmarks.data.coco_files import SQUARE, annotation, coco, image, load, picture, write


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
