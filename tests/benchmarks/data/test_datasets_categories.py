from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from torchvision.models import ResNet50_Weights
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

import benchmarks.data.categories as module
from benchmarks.data.categories import (
    VOC_CATEGORIES,
    imagenet_classes,
    names_of_classes,
    targets_by_category,
)

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
    assert targets_by_category(["a", "b"], ["class 0", "class 1"]) == [(0,), (1,)]
    assert targets_by_category(["zebra", "person"], names_of_classes(None)) == [(340,), ()]
    with pytest.raises(ValueError, match=r"3 classes, 'c', 'd', 'e', but .* has 2 categories, 'a'"):
        targets_by_category(["a", "b"], ["c", "d", "e"])


def test_two_categories_of_one_name_are_two():
    assert targets_by_category(["dog", "dog"], ["class 0", "class 1"]) == [(0,), (1,)]


def test_categories_by_the_names_of_classes():
    classes = ["background", "Traffic_Light", "dog"]
    assert targets_by_category(["dog", "traffic light", "cat", "cow"], classes) == [
        (2,),
        (1,),
        (),
        (),
    ]
    coco_names = ["airplane", "tv"]
    assert targets_by_category(["aeroplane", "tvmonitor"], ["tv", "airplane", "x"], coco_names) == [
        (1,),
        (0,),
    ]


def test_as_many_classes_in_another_order_are_found_by_name_or_refused():
    assert targets_by_category(["a", "b"], ["b", "a"]) == [(1,), (0,)]
    assert targets_by_category(["a", "b", "c"], ["A", "x", "y"]) == [(0,), (1,), (2,)]
    with pytest.raises(ValueError, match=r"class 0 is 'b' and the category at this place 'a'"):
        targets_by_category(["a", "b", "c"], ["b", "a", "x"])


def test_a_number_is_no_list_of_names():
    with pytest.raises(TypeError, match="names of the network's classes"):
        names_of_classes(80)
