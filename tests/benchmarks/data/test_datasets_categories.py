from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from torchvision.models import ResNet50_Weights
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

import benchmarks.data.categories as module
from benchmarks.data.categories import VOC_CATEGORIES, imagenet_classes, targets_by_category

COCO = [
    name
    for name in FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    if name not in ("__background__", "N/A")
]


def test_every_row_names_its_class():
    names = ResNet50_Weights.DEFAULT.meta["categories"]
    with (Path(module.__file__).parent / "categories.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert rows
    for row in rows:
        assert names[int(row["index"])] == row["class"]
    assert sum(map(len, imagenet_classes().values())) == len(rows)


def test_no_class_is_of_two_categories():
    counts = Counter(index for classes in imagenet_classes().values() for index in classes)
    assert max(counts.values()) == 1


def test_categories_are_those_of_coco_and_voc():
    assert len(COCO) == 80
    assert list(imagenet_classes()) == [name for name in COCO if name in imagenet_classes()]
    assert len(VOC_CATEGORIES) == 20
    assert list(VOC_CATEGORIES) == sorted(VOC_CATEGORIES)
    assert set(VOC_CATEGORIES.values()) <= set(COCO)
    without = {name for name in VOC_CATEGORIES.values() if name not in imagenet_classes()}
    assert without == {"person"}


@pytest.mark.parametrize(
    ("category", "classes"),
    [
        ("cat", range(281, 286)),
        ("dog", range(151, 269)),
        ("bear", range(294, 298)),
        ("zebra", [340]),
        ("banana", [954]),
        ("tv", [664, 782, 851]),
    ],
)
def test_known_classes(category, classes):
    assert list(imagenet_classes()[category]) == list(classes)


@pytest.mark.parametrize(
    ("category", "never"),
    [
        ("bird", [21 - 15, 25, 126, 147]),  # stingray, salamander, isopod, grey whale
        ("dog", [269, 273, 274, 275, 852, 934]),  # wolf, dingo, dhole, hunting dog, ball, hotdog
        ("cat", [282 + 4, 287, 383]),  # cougar, lynx, Madagascar cat
        ("horse", [340, 603, 602]),  # zebra, horse cart, horizontal bar
        ("oven", [544]),  # Dutch oven
        ("orange", [948]),
        ("mouse", [674]),  # mousetrap
        ("bench", [416]),
    ],
)
def test_what_only_sounds_alike(category, never):
    assert not set(never) & set(imagenet_classes()[category])


def test_kite_and_crane_are_birds():
    names = ResNet50_Weights.DEFAULT.meta["categories"]
    assert "kite" not in imagenet_classes()
    assert {names.index("kite"), names.index("crane bird")} <= set(imagenet_classes()["bird"])


def test_targets_by_category():
    assert targets_by_category(["a", "b"], 2) == {"a": (0,), "b": (1,)}
    assert targets_by_category(["zebra", "person"], 1000) == {"zebra": (340,), "person": ()}
    with pytest.raises(ValueError, match="3 classes, but the data set has 2 categories"):
        targets_by_category(["a", "b"], 3)
