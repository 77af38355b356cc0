"""Which ImageNet classes the categories of COCO and VOC stand for."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path

__all__ = ["N_IMAGENET", "VOC_CATEGORIES", "imagenet_classes", "targets_by_category"]

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


def targets_by_category(names: Sequence[str], n_classes: int) -> dict[str, tuple[int, ...]]:
    """The network's classes for each category of a data set.

    Args:
        names (sequence of str): The categories in their order, by COCO's names if the network is
            one of ImageNet.
        n_classes (int): Number of the network's classes: as many as there are categories if they
            are its own, or 1000, ImageNet's.

    Returns:
        dict of str to tuple of int: None where ImageNet has no such class.

    Raises:
        ValueError: If the network has another number of classes.

    Examples::

        >>> targets_by_category(["cat", "person"], n_classes=2)
        {'cat': (0,), 'person': (1,)}
        >>> targets_by_category(["cat", "person"], n_classes=1000)
        {'cat': (281, 282, 283, 284, 285), 'person': ()}
    """
    if n_classes == len(names):
        return {name: (index,) for index, name in enumerate(names)}
    if n_classes == N_IMAGENET:
        return {name: imagenet_classes().get(name, ()) for name in names}
    raise ValueError(
        f"The network has {n_classes} classes, but the data set has {len(names)} categories: "
        f"expected as many classes, in the order of the categories, or ImageNet's {N_IMAGENET}."
    )
