"""COCO: each image with each of its categories is a sample."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from captum_groupcam.images import ImageError, open_image

from ._coco_file import (
    CocoAnnotation,
    CocoFile,
    CocoImage,
    Pictures,
    decode,
    find_table,
    read_table,
)
from ._objects import Box, boxes_tensor, inside, is_difficult, open_annotated
from ._samples import Dataset, LeftOut, Sample, printable
from .categories import names_of_classes, no_class, targets_by_category

__all__ = ["coco", "coco_masks"]

_N_DETECTION = 91


def coco(root: str | Path | None = None, class_names: Sequence[str] | None = None) -> Dataset:
    """COCO with boxes: each image with each of its categories is a sample, ``file:category``.

    .. code-block:: text

        root/annotations/instances_val2017.json
        root/val2017/      the images (or root/images/val2017/)

    Or any other split, or as annotation tools export it: another name of the JSON file, beside the
    images or with the images below it (CVAT, Label Studio, labelme, VIA, FiftyOne), or a folder for
    each split (Roboflow). Of several files the one with "val" in its path is meant; `root` may also
    be the JSON file. Images are looked for where these tools put them, and then by their names
    anywhere below the root.

    Networks with as many outputs as there are categories have them in the order of their ids; with
    91, the ids themselves, as torchvision's detection models do; with 1000, ImageNet's classes
    (:func:`~benchmarks.data.imagenet_classes`); any other the categories that its classes are
    called like. A category that is only the parent of others, without annotations, need not be
    counted. Two categories of one name are distinguished by their ids, and so are two images.

    Crowd annotations, those that are flagged with ``ignore``, malformed ones, boxes without area,
    and categories that the network does not have make no sample and are counted in `left_out`, by
    name; boxes are cut off at the image's border. They all count as something that distracts, for
    the difficult subset (:func:`~benchmarks.data.is_difficult`).

    Images whose size was annotated as their camera turned them (EXIF orientation) are turned alike.

    Args:
        root (str or Path): The folder, or the JSON file.
        class_names (sequence of str, optional): A name for each class of the network. Default:
            None, ImageNet's 1000.

    Returns:
        Dataset: The samples, in the order of the images' ids and then of the categories'. One whose
        image is missing, damaged, or of another size than annotated is a failure when its turn
        comes.

    Raises:
        ValueError: If files are missing or not as described, or the number of classes fits nothing.
    """
    return _coco(root, class_names, masks=False)


def coco_masks(root: str | Path | None = None, class_names: Sequence[str] | None = None) -> Dataset:
    """COCO with masks of the objects instead of their boxes; else as :func:`coco`.

    The mask of a sample is the union of its objects'. Whether it is difficult goes by the areas of
    the segments. Objects without a segment make no sample and are counted; boxes do not matter.

    Args:
        root (str or Path): The folder, or the JSON file.
        class_names (sequence of str, optional): A name for each class of the network. Default:
            None, ImageNet's 1000.

    Returns:
        Dataset: As from :func:`coco`; one whose mask contains no pixel, or with a segment that is
        malformed or made for a picture of another size, is a failure.

    Raises:
        ValueError: As in :func:`coco`.
    """
    return _coco(root, class_names, masks=True)


def _coco(root: str | Path | None, class_names: Sequence[str] | None, masks: bool) -> Dataset:
    table, root, notes = find_table(root)
    left_out, class_names = LeftOut(), names_of_classes(class_names)
    file, pictures = read_table(table, left_out), Pictures(root, table)
    targets = _targets(file, class_names, table)
    labels = _told_apart(file.categories, "{name} ({key})")
    names = _told_apart({image.id: image.file for image in file.images}, "{name} (image {key})")

    loaders: dict[str, Callable[[], Sample]] = {}
    expected: list[str] = []
    for image in file.images:
        if not image.annotations:
            left_out.add("image without annotations", names[image.id])
        size = image.size or pictures.size(image.file)
        by_category: dict[str, list[CocoAnnotation]] = {}
        for one in image.annotations:
            if one.flaw is None and not targets[one.category]:
                reason: str | None = no_class(labels[one.category], class_names)
            else:
                reason = one.flaw or _missing(one, size, masks)
            if reason is None:
                by_category.setdefault(one.category, []).append(one)
            else:
                left_out.add(reason, one.name)
        n_categories = len({one.category for one in image.annotations})
        for category in (key for key in file.categories if key in by_category):
            about = _About(
                printable(f"{names[image.id]}:{labels[category]}"),
                pictures,
                image,
                targets[category],
                labels[category],
                n_categories,
            )
            if about.id in loaders:
                left_out.add("another sample has the same name", about.id)
                continue
            objects = by_category[category]
            boxes = [box for one in objects if (box := _box(one, size)) is not None]
            loaders[about.id] = (
                partial(_with_masks, about, objects)
                if masks
                else partial(_with_boxes, about, boxes)
            )
            expected.append(image.file)
    if expected and not any(map(pictures.has, expected)):
        raise ValueError(
            f"The images of {table} are not there: expected {expected[0]} in {pictures.expected}."
        )
    return Dataset(loaders, left_out=left_out, notes=notes)


def _missing(annotation: CocoAnnotation, size: tuple[int, int] | None, masks: bool) -> str | None:
    """What an object lacks to be one to hit."""
    if masks:
        return "no segment" if annotation.segment is None else None
    if annotation.box is None:
        return "bbox is not x, y, width, height"
    return "box without area in the image" if _box(annotation, size) is None else None


def _box(annotation: CocoAnnotation, size: tuple[int, int] | None) -> Box | None:
    """The part of a box that lies in the image, whose size is unknown if it cannot be read."""
    if annotation.box is None:
        return None
    x, y, width, height = annotation.box
    return inside((x, y, x + width, y + height), *(size or (math.inf, math.inf)))


def _told_apart(names: Mapping[str, str], form: str) -> dict[str, str]:
    """Names by key, those that several share with their keys in them."""
    counts = Counter(names.values())
    return {
        key: form.format(name=name, key=key) if counts[name] > 1 else name
        for key, name in names.items()
    }


@dataclass(frozen=True)
class _About:
    """What is known of a sample before its image is loaded."""

    id: str
    pictures: Pictures
    image: CocoImage
    targets: tuple[int, ...]
    label: str
    n_categories: int

    def open(self) -> tuple[Path, Image.Image]:
        path = self.pictures.find(self.image.file)
        if self.image.size is None:
            return path, open_image(path, upright=False)
        return path, open_annotated(path, *self.image.size)

    def is_difficult(self, areas: Sequence[float], image: Image.Image) -> bool:
        return is_difficult(areas, image.width * image.height, self.n_categories)


def _with_boxes(about: _About, boxes: Sequence[Box]) -> Sample:
    path, image = about.open()
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
    return Sample(
        about.id,
        image,
        about.targets,
        about.label,
        boxes=boxes_tensor(boxes),
        difficult=about.is_difficult(areas, image),
        file=path,
    )


def _with_masks(about: _About, objects: Sequence[CocoAnnotation]) -> Sample:
    path, image = about.open()
    masks = [decode(one, *image.size) for one in objects]
    areas = [
        float(mask.sum()) if one.area is None else one.area
        for one, mask in zip(objects, masks, strict=True)
    ]
    union = np.logical_or.reduce(masks)
    if not union.any():
        raise ImageError(f"{about.id}: its segments contain no pixel")
    return Sample(
        about.id,
        image,
        about.targets,
        about.label,
        masks=torch.from_numpy(union),
        difficult=about.is_difficult(areas, image),
        file=path,
    )


def _targets(file: CocoFile, class_names: Sequence[str], table: Path) -> dict[str, tuple[int, ...]]:
    """The network's classes of each category, by its id."""
    keys = list(file.categories)
    numbers = [int(key) for key in keys if key.isascii() and key.isdecimal()]
    n_classes = len(class_names)
    if n_classes == _N_DETECTION != len(keys) == len(numbers) and max(numbers) < _N_DETECTION:
        return {key: (int(key),) for key in keys}
    in_use = {one.category for image in file.images for one in image.annotations}
    without_parents = [key for key in keys if key in in_use or key not in file.parents]
    none: dict[str, tuple[int, ...]] = dict.fromkeys(keys, ())
    if n_classes == len(without_parents):
        keys = without_parents
    try:
        found = targets_by_category([file.categories[key] for key in keys], class_names)
    except ValueError as error:
        raise ValueError(f"{table}: {error}") from error
    return none | dict(zip(keys, found, strict=True))
