"""ImageNet: folders and boxes written here, and real images that the network knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.data import DATASETS
from tests.benchmarks.data.annotated import numbered, picture, samples, voc_xml


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
