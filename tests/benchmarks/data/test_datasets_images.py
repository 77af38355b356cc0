"""A folder of pictures as people have it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.data import DATASETS, Dataset

CLASSES = ["cat", "dog", "Tiger Cat"]


def pictures(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path)
    return root


def load(root: Path, classes: list[str] | None = CLASSES) -> Dataset:
    return DATASETS["images"](root, classes)


def test_nested_folders_named_like_classes(tmp_path):
    pictures(tmp_path, "Cat/b.png", "Cat/a.jpg", "val/dog/x/c.png", "tiger_cat/d.webp")
    dataset = load(tmp_path)
    found = {one.id: (one.targets, one.label) for one in dataset}
    assert found == {
        "Cat/a.jpg": ((0,), "Cat"),
        "tiger_cat/d.webp": ((2,), "tiger_cat"),
        "val/dog/x/c.png": ((1,), "dog"),
        "Cat/b.png": ((0,), "Cat"),
    }
    assert list(found)[:3] == ["Cat/a.jpg", "tiger_cat/d.webp", "val/dog/x/c.png"]  # in turn
    assert not dataset.has_objects
    assert not dataset.left_out
    assert not dataset.notes
    assert [one.file for one in dataset.limit(1)] == [tmp_path / "Cat/a.jpg"]


@pytest.mark.parametrize("names", [("a.png", "b.jpg"), ("2024/a.png", "2024/05/b.jpg")])
def test_flat_or_other_folders_are_explained_for_the_predicted_class(tmp_path, names):
    dataset = load(pictures(tmp_path, *names))
    assert [(one.targets, one.label) for one in dataset] == [((0, 1, 2), "")] * 2
    (note,) = dataset.notes
    assert "every picture is explained for the class that the network predicts" in note


def test_a_folder_that_is_no_class_beside_others_is_named(tmp_path):
    dataset = load(pictures(tmp_path, "cat/a.png", "dogg/b.png"))
    assert {one.id: one.targets for one in dataset} == {"cat/a.png": (0,), "dogg/b.png": (0, 1, 2)}
    (note,) = dataset.notes
    assert note.startswith("1 of 2 pictures")
    assert "dogg/b.png" in note


def test_wordnet_ids_and_names_of_imagenet(tmp_path):
    pictures(tmp_path, "n01440764/a.png", "tabby/b.png", "cardigan/c.png", "n99999999/d.png")
    targets = {one.id: one.targets for one in load(tmp_path, None)}
    assert targets["n01440764/a.png"] == (0,)
    assert targets["tabby/b.png"] == (281,)
    assert targets["cardigan/c.png"] == (474,)  # the dog is the Cardigan, 264
    assert len(targets["n99999999/d.png"]) == 1000
    own = {one.id: one.targets for one in load(tmp_path, ["n01440764", "tabby"])}
    assert own["n01440764/a.png"] == (0,)


def test_other_files_are_counted_and_named_and_all_formats_taken(tmp_path):
    names = ["a.jfif", "b.jp2", "c.tiff", "d.BMP"]
    pictures(tmp_path, *names, ".hidden.png")
    for name in ("notes.txt", "raw.heic", "sub/.DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    dataset = load(tmp_path)
    assert [one.id for one in dataset] == names
    assert dataset.left_out.lines() == [
        "2: hidden (.hidden.png, sub/.DS_Store)",
        "2: not an image file by its name (notes.txt, raw.heic)",
    ]


def test_a_single_picture(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    assert [one.id for one in load(tmp_path / "a.png")] == ["a.png"]


def test_damaged_and_elongated_pictures_are_failures_and_the_next_follows(tmp_path, damaged_file):
    pictures(tmp_path, "fine.png")
    Image.new("L", (20_000, 1)).save(tmp_path / "long.png")
    dataset = load(tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        assert [one.id for one in dataset] == ["fine.png"]
    assert "too elongated" in dataset.failures["long.png"]
    assert "damaged.jpg" in dataset.failures


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are no UTF-8")
def test_names_that_no_terminal_takes(tmp_path):
    pictures(tmp_path, "a.png")
    for name in (b"\xff.png", b"\x1b[2J.png", "\u202egnp.png".encode()):
        (tmp_path / "a.png").rename(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)))
        pictures(tmp_path, "a.png")
    ids = [one.id for one in load(tmp_path)]
    assert sorted(ids) == sorted(["a.png", r"\udcff.png", r"\x1b[2J.png", r"\u202egnp.png"])
    assert all(name.isprintable() and name.encode() for name in ids)


def test_two_names_that_print_alike_are_one_sample_and_one_left_out(tmp_path):
    dataset = load(pictures(tmp_path, "a\x1b.png", "a\\x1b.png"))
    assert list(dataset.loaders) == ["a\\x1b.png"]
    assert dataset.left_out == {"another sample has the same name": 1}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "there are none: it is empty"),
        (("a.heic", "b.txt"), r"there are none: 2: not an .* \(a\.heic, b"),
    ],
)
def test_a_folder_without_pictures_says_what_is_there(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"Expected pictures below .*, {message}"):
        load(tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such file or folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="needs its folder"):
        DATASETS["images"](None)
