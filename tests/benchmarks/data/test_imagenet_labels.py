"""ImageNet's validation images in one folder, with a label file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.data import DATASETS, Dataset

WNIDS = ["n01443537", "n01440764", "n01443537"]
NAMES = [f"ILSVRC2012_val_0000000{number}.JPEG" for number in (1, 2, 3)]
EXPECTED = {
    f"n01440764/{NAMES[1]}": (0,),
    f"n01443537/{NAMES[0]}": (1,),
    f"n01443537/{NAMES[2]}": (1,),
}


def pictures(folder: Path, names: list[str] = NAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 6)).save(folder / name, "JPEG")
    return folder


def load(root: Path, classes: list[str] | None = None) -> Dataset:
    return DATASETS["imagenet"](root, classes)


INDICES = {"n01440764": 0, "n01443537": 1}
FILES = {
    "val.txt": "".join(f"{n} {INDICES[w]}\n" for n, w in zip(NAMES, WNIDS, strict=True)),
    "val.csv": "\ufefffile,label\n"
    + "".join(f"val/{n},{INDICES[w]}\n" for n, w in zip(NAMES, WNIDS, strict=True)),
    "labels.csv": "".join(f"{n},{w}\n" for n, w in zip(NAMES, WNIDS, strict=True)),
    "LOC_val_solution.csv": "ImageId,PredictionString\n"
    + "".join(
        f"{n.removesuffix('.JPEG')},{w} 1 1 5 5 {w} 2 2 6 6 \n"
        for n, w in zip(reversed(NAMES), reversed(WNIDS), strict=True)
    ),
    "synset_labels.txt": "\n".join(WNIDS) + "\n\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", ["val", "ILSVRC/Data/CLS-LOC/val", "."])
def test_label_files_as_they_go_round(tmp_path, name, place):
    pictures(tmp_path / place)
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    dataset = load(tmp_path)
    assert {one.id: one.targets for one in dataset} == EXPECTED
    assert list(dataset.loaders) == [
        f"n01440764/{NAMES[1]}",
        f"n01443537/{NAMES[0]}",
        f"n01443537/{NAMES[2]}",
    ]
    assert not dataset.left_out
    assert name in dataset.notes[0]
    assert not dataset.has_objects


def devkit(root: Path) -> Path:
    """ILSVRC's own numbers, of which the last is no class but a group of them."""
    savemat = pytest.importorskip("scipy.io").savemat
    folder = root / "ILSVRC2012_devkit_t12/data"
    folder.mkdir(parents=True)
    kinds = [("ILSVRC2012_ID", float), ("WNID", object), ("num_children", float)]
    rows = [(1, "n01443537", 0), (2, "n01440764", 0), (1001, "n00001740", 2)]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n1\n")
    return folder


def test_the_devkits_numbers_are_not_those_of_the_networks(tmp_path):
    pictures(tmp_path / "val")
    folder = devkit(tmp_path)
    assert {one.id: one.targets for one in load(tmp_path)} == EXPECTED
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n1001\n1\n")
    with pytest.raises(ValueError, match=r"truth\.txt, line 2: .*meta\.mat has no class 1001"):
        load(tmp_path)
    (folder / "meta.mat").write_bytes(b"no matrix")
    with pytest.raises(ValueError, match=r"not the meta\.mat of ILSVRC's devkit"):
        load(tmp_path)
    (folder / "meta.mat").unlink()
    with pytest.raises(ValueError, match=r"numbers alone do not say which classes"):
        load(tmp_path)


def test_boxes_belong_to_flat_images_too(tmp_path):
    pictures(tmp_path / "val")
    (tmp_path / "val.txt").write_text(FILES["val.txt"])
    (tmp_path / "bbox/val").mkdir(parents=True)
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>4</xmax><ymax>5</ymax></bndbox>"
    for name, wnid in zip(NAMES, WNIDS, strict=True):
        (tmp_path / "bbox/val" / name).with_suffix(".xml").write_text(
            "<annotation><size><width>8</width><height>6</height></size>"
            f"<object><name>{wnid}</name>{box}</object></annotation>"
        )
    dataset = load(tmp_path)
    assert dataset.has_objects
    assert [one.boxes.tolist() for one in dataset] == [[[1, 2, 5, 6]]] * 3


def test_what_fits_nothing_is_named(tmp_path):
    pictures(tmp_path / "val", [*NAMES, "more.JPEG"])
    (tmp_path / "val/readme.md").touch()
    (tmp_path / "val.txt").write_text(FILES["val.txt"] + "gone.JPEG 7\n")
    dataset = load(tmp_path)
    assert len(dataset) == 3
    assert dataset.left_out.lines() == [
        "1: not an image file by its name (readme.md)",
        "1: in val.txt, but there is no such image (gone.JPEG)",
        "1: no label in val.txt (more.JPEG)",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        (f"{NAMES[0]} cat\n{NAMES[1]} cat\n", "line 2: expected a file and its class"),
        (f"{NAMES[0]} 1\n{NAMES[0]} 2\n", "line 2: .* is of class 2, but of 1"),
        (f"{NAMES[0]} 1000\n", "is of class 1000, but the network has 1000 classes"),
        (f"{NAMES[0]} n99999999\n", "n99999999 is not a class of ImageNet"),
        ("n01440764\n", "it has 1 labels without names of files, for 3 images"),
        ("n01440764\ncat\nn01440764\n", "line 2: expected a class, got 'cat'"),
        ("1\n2\n3\n", "numbers alone do not say"),
    ],
)
def test_a_label_file_that_cannot_be_understood(tmp_path, content, message):
    pictures(tmp_path / "val")
    (tmp_path / "val.txt").write_text(content)
    with pytest.raises(ValueError, match=rf"val\.txt.*{message}"):
        load(tmp_path)


def test_jpegs_without_labels_are_not_no_images(tmp_path):
    pictures(tmp_path / "val")
    with pytest.raises(ValueError, match=r"val has 3 images, but there is no such file.*'images'"):
        load(tmp_path)


def test_folders_without_images_say_what_is_there(tmp_path):
    for name in ("n01440764/a.heic", "n01440764/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"no image in the folders of .* \(n01440764\); 2: .*heic"):
        load(tmp_path)


def test_what_lies_beside_and_below_the_folders_of_classes(tmp_path):
    pictures(tmp_path / "val/n01440764/more", ["deep.JPEG"])
    pictures(tmp_path / "val", ["loose.JPEG"])
    (tmp_path / "val/n01440764/notes.txt").touch()
    dataset = load(tmp_path)
    assert [one.id for one in dataset] == ["n01440764/more/deep.JPEG"]
    assert dataset.left_out.lines() == [
        "1: beside the folders of the classes (loose.JPEG)",
        "1: not an image file by its name (n01440764/notes.txt)",
    ]


def test_a_network_of_its_own(tmp_path):
    pictures(tmp_path / "val")
    (tmp_path / "val.txt").write_text(FILES["val.txt"])
    by_number = load(tmp_path, ["a", "b", "c"])
    assert {one.id: one.targets for one in by_number} == {
        f"0/{NAMES[1]}": (0,),
        f"1/{NAMES[0]}": (1,),
        f"1/{NAMES[2]}": (1,),
    }
    (tmp_path / "val.txt").write_text(FILES["labels.csv"])
    by_name = load(tmp_path, ["n01443537", "n01440764"])
    assert {one.label: one.targets for one in by_name} == {"n01443537": (0,), "n01440764": (1,)}
    folders = tmp_path / "folders"
    for name in ("dog", "bird", "cat"):
        pictures(folders / name, ["x.JPEG"])
    dataset = load(folders, ["background", "Cat", "Dog", "fish"])
    assert {one.label: one.targets for one in dataset} == {"cat": (1,), "dog": (2,)}
    assert dataset.left_out == {"no class of the network for 'bird'": 1}
