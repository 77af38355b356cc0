"""VOC: files written here, and real ones read by other code."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.data import DATASETS
from tests.benchmarks.data.annotated import numbered, picture, samples, voc_xml


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
