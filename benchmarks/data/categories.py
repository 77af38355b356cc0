"""Which ImageNet classes the categories of COCO and VOC stand for."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from torchvision.models import ResNet50_Weights

__all__ = ["N_IMAGENET", "VOC_CATEGORIES", "ClassIndex", "imagenet_classes", "names_of_classes"]
__all__ += ["no_class", "targets_by_category"]

#: The categories of PASCAL VOC in their order, with COCO's name where that is another.
VOC_CATEGORIES = {
    "aeroplane": "airplane",
    "bicycle": "bicycle",
    "bird": "bird",
    "boat": "boat",
    "bottle": "bottle",
    "bus": "bus",
    "car": "car",
    "cat": "cat",
    "chair": "chair",
    "cow": "cow",
    "diningtable": "dining table",
    "dog": "dog",
    "horse": "horse",
    "motorbike": "motorcycle",
    "person": "person",
    "pottedplant": "potted plant",
    "sheep": "sheep",
    "sofa": "couch",
    "train": "train",
    "tvmonitor": "tv",
}

#: Number of ImageNet's classes.
N_IMAGENET = 1000


@cache
def imagenet_classes() -> dict[str, tuple[int, ...]]:
    """The ImageNet classes of COCO's categories, from ``categories.csv`` beside this file.

    A class stands under the category that its objects would be annotated as: subordinates in
    WordNet's sense (151 Chihuahua to 268 Mexican hairless are dogs; wolves and the dingo are not),
    parts and lookalikes excluded (21 kite is a bird, 544 Dutch oven is a pot). Where ImageNet has
    nothing that is subordinate, the table takes what shows the same kind of object: moped and motor
    scooter for motorcycle, ox for cow, goblet for wine glass, street sign for stop sign, pot for
    potted plant, toilet seat for toilet. Categories that ImageNet lacks (giraffe, fork) are not in
    it, nor is person: ImageNet's three are roles in a scene (groom), no likelier for any other
    person than any other class.

    Returns:
        dict of str to tuple of int: COCO's name to the classes, in ascending order.
    """
    found: dict[str, tuple[int, ...]] = {}
    with (Path(__file__).parent / "categories.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            category = row["category"]
            found[category] = (*found.get(category, ()), int(row["index"]))
    return found


def names_of_classes(class_names: Sequence[str] | None) -> Sequence[str]:
    """The names of a network's classes: those that are given, or ImageNet's.

    Raises:
        TypeError: If something else than names is given.
    """
    if class_names is None:
        return list(ResNet50_Weights.DEFAULT.meta["categories"])
    if isinstance(class_names, (str, int)):
        raise TypeError(
            f"Expected the names of the network's classes, one for each, got {class_names!r}."
        )
    return class_names


class ClassIndex:
    """Finds the classes of a network by name.

    Case does not matter, nor whether words are joined by a space, ``_`` or ``-``, unless it tells
    two classes apart.

    Args:
        class_names (sequence of str): A name for each class.

    Examples::

        >>> index = ClassIndex(["Cardigan", "cardigan", "tiger cat"])
        >>> index.find("cardigan"), index.find("CARDIGAN"), index.find("Tiger_cat"), index.find("x")
        ((1,), (0, 1), (2,), ())
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._exact: dict[str, tuple[int, ...]] = {}
        self._alike: dict[str, tuple[int, ...]] = {}
        for index, name in enumerate(class_names):
            self._exact[name] = (*self._exact.get(name, ()), index)
            key = _plain(name)
            self._alike[key] = (*self._alike.get(key, ()), index)

    def find(self, name: str) -> tuple[int, ...]:
        """The classes of this name: none as a rule, or one, or several that share it."""
        return self._exact.get(name) or self._alike.get(_plain(name), ())


def no_class(category: str, class_names: Sequence[str]) -> str:
    """The reason that leaves out objects of a category that a network does not have."""
    kind = "ImageNet class" if len(class_names) == N_IMAGENET else "class of the network"
    return f"no {kind} for {category!r}"


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def targets_by_category(
    names: Sequence[str], class_names: Sequence[str], coco_names: Sequence[str] | None = None
) -> list[tuple[int, ...]]:
    """The network's classes for each category of a data set.

    A network of as many classes as there are categories has them in their order; one of 1000 has
    ImageNet's. Of any other, the classes that are called like the categories are meant.

    Args:
        names (sequence of str): The categories in their order; two may share a name.
        class_names (sequence of str): A name for each class of the network.
        coco_names (sequence of str, optional): What COCO calls the categories. Default: None, the
            same.

    Returns:
        list of tuple of int: For each category its classes, none where the network has no such
        class.

    Raises:
        ValueError: If there are as many classes as categories but names say that the order is
            another, or no class is called like a category.

    Examples::

        >>> targets_by_category(["cat", "person"], ["class 0", "class 1"])
        [(0,), (1,)]
        >>> targets_by_category(["cat", "person"], ["bird", "dog", "cat"])
        [(2,), ()]
        >>> targets_by_category(["cat", "person"], names_of_classes(None))
        [(281, 282, 283, 284, 285), ()]
    """
    coco_names = names if coco_names is None else coco_names
    index = ClassIndex(class_names)
    named = [
        index.find(name) or index.find(coco) for name, coco in zip(names, coco_names, strict=True)
    ]
    if len(class_names) == len(names):
        in_order: list[tuple[int, ...]] = [(place,) for place in range(len(names))]
        others = [place for place, found in enumerate(named) if found and place not in found]
        if not others:
            return in_order
        if len(set(named)) == len(names) and all(len(found) == 1 for found in named):
            return named
        place = others[0]
        raise ValueError(
            f"The network has as many classes as there are categories, but its class {place} is "
            f"{class_names[place]!r} and the category at this place {names[place]!r}, which the "
            f"network has as class {named[place][0]}: name them alike, or order them alike."
        )
    if len(class_names) == N_IMAGENET:
        return [imagenet_classes().get(name, ()) for name in coco_names]
    if any(named):
        return named
    raise ValueError(
        f"The network has {len(class_names)} classes, {_some(class_names)}, but the data set has "
        f"{len(names)} categories, {_some(names)}: expected as many classes, in the order of the "
        f"categories, or classes of the same names, or ImageNet's {N_IMAGENET}."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + ", ..." * (len(names) > 3)
