"""COCO: each image with each of its categories is a sample."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.data._objects import Box, boxes_tensor, inside, is_difficult, open_annotated
from benchmarks.data._samples import Dataset, Sample, existing_folder
from benchmarks.data.categories import targets_by_category
from captum_groupcam.images import ImageError

__all__ = ["coco", "coco_masks"]

_N_DETECTION = 91
_CONTENT = "annotations/instances_*.json and the folder of the images, named as the file says"


def coco(root: str | Path | None = None, n_classes: int = 1000) -> Dataset:
    """COCO with boxes: each image with each of its categories is a sample, ``file:category``.

    ::

        root/annotations/instances_val2017.json
        root/val2017/      the images (or root/images/val2017/)

    Or any other split. Of several the one with "val" in its name is meant; `root` may also be the
    JSON file. Networks with 80 outputs have COCO's categories in the order of their ids; with 91,
    the ids themselves, as torchvision's detection models do; with 1000, ImageNet's classes
    (:func:`~benchmarks.data.imagenet_classes`).

    Crowd annotations, boxes without area, and categories that the network does not have make no
    sample and are counted in `left_out`; boxes are cut off at the image's border. They all count as
    something that distracts, for the difficult subset
    (:func:`~benchmarks.data.is_difficult`).

    Args:
        root (str or Path): The folder, or the JSON file.
        n_classes (int, optional): Number of the network's classes. Default: 1000.

    Returns:
        Dataset: The samples, in the order of the images' ids and then of the categories'. One whose
        image is missing, damaged, or of another size than annotated is a failure when its turn
        comes.

    Raises:
        ValueError: If files are missing or not as described, or the number of classes fits nothing.
        ModuleNotFoundError: If pycocotools is missing, with the command that installs it.
    """
    return _coco(root, n_classes, masks=False)


def coco_masks(root: str | Path | None = None, n_classes: int = 1000) -> Dataset:
    """COCO with masks of the objects instead of their boxes; else as :func:`coco`.

    The mask of a sample is the union of its objects'. Whether it is difficult goes by the areas of
    the segments. Objects without a segment make no sample and are counted.

    Args:
        root (str or Path): The folder, or the JSON file.
        n_classes (int, optional): Number of the network's classes. Default: 1000.

    Returns:
        Dataset: As from :func:`coco`; one whose mask contains no pixel is a failure.

    Raises:
        ValueError: As in :func:`coco`.
        ModuleNotFoundError: As in :func:`coco`.
    """
    return _coco(root, n_classes, masks=True)


def _coco(root: str | Path | None, n_classes: int, masks: bool) -> Dataset:
    table, images = _find(root)
    index = _read(table)
    targets = _targets(index, n_classes, table)
    names = {key: category["name"] for key, category in index.cats.items()}

    loaders: dict[str, Callable[[], Sample]] = {}
    unlisted = sum(one["image_id"] not in index.imgs for one in index.dataset["annotations"])
    left_out = Counter({"of an image that the file does not list": unlisted} if unlisted else {})
    for image_id in sorted(index.imgs):
        image = index.imgs[image_id]
        size = image["width"], image["height"]
        annotations = index.imgToAnns.get(image_id, [])
        by_category: dict[int, list[tuple[Mapping[str, Any], Box]]] = {}
        for annotation in annotations:
            x, y, width, height = annotation["bbox"]
            box = inside((x, y, x + width, y + height), *size)
            category = annotation["category_id"]
            if annotation.get("iscrowd"):
                left_out["crowd annotation"] += 1
            elif not targets[category]:
                left_out[f"no ImageNet class for {names[category]!r}"] += 1
            elif box is None:
                left_out["box without area in the image"] += 1
            elif masks and not annotation.get("segmentation"):
                left_out["no segment"] += 1
            else:
                by_category.setdefault(category, []).append((annotation, box))
        n_categories = len({annotation["category_id"] for annotation in annotations})
        for category, objects in sorted(by_category.items()):
            segments, boxes = zip(*objects, strict=True)
            areas = [one["area"] for one in segments] if masks else [_area(box) for box in boxes]
            about = _About(
                f"{image['file_name']}:{names[category]}",
                images / image["file_name"],
                size,
                targets[category],
                names[category],
                is_difficult(areas, size[0] * size[1], n_categories),
            )
            loaders[about.id] = (
                partial(_with_masks, about, index, segments)
                if masks
                else partial(_with_boxes, about, boxes)
            )
    return Dataset(loaders, left_out=dict(left_out))


@dataclass(frozen=True)
class _About:
    """What is known of a sample before its image is loaded."""

    id: str
    path: Path
    size: tuple[int, int]
    targets: tuple[int, ...]
    label: str
    difficult: bool

    def load(self, boxes: Tensor | None = None, masks: Tensor | None = None) -> Sample:
        image = open_annotated(self.path, *self.size)
        return Sample(
            self.id, image, self.targets, self.label, boxes, masks, self.difficult, self.path
        )


def _with_boxes(about: _About, boxes: Sequence[Box]) -> Sample:
    return about.load(boxes=boxes_tensor(boxes))


def _with_masks(about: _About, index: Any, segments: Sequence[Mapping[str, Any]]) -> Sample:
    try:
        with warnings.catch_warnings():  # it is behind NumPy 2's protocol; nothing is wrong
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            union = np.logical_or.reduce([index.annToMask(segment) for segment in segments])
    except Exception as error:  # pycocotools raises nearly anything on damaged segments
        raise ImageError(f"{about.id}: its segments cannot be read ({error})") from error
    if not union.any():
        raise ImageError(f"{about.id}: its segments contain no pixel")
    return about.load(masks=torch.from_numpy(union))


def _area(box: Box) -> float:
    x0, y0, x1, y1 = box
    return (x1 - x0) * (y1 - y0)


def _find(root: str | Path | None) -> tuple[Path, Path]:
    """The JSON file and the folder of its images."""
    if root is not None and Path(root).is_file():
        tables, root = [Path(root)], Path(root).parent.parent
    else:
        root = existing_folder(root, _CONTENT)
        tables = sorted((root / "annotations").glob("instances_*.json"))
        if not tables:
            raise ValueError(f"Expected a folder with {_CONTENT}: no such file below {root}.")
    found = [
        (table, folder)
        for table in tables
        for folder in _image_folders(root, table)
        if folder.is_dir()
    ]
    if len(found) > 1:
        found = [(table, folder) for table, folder in found if "val" in table.stem] or found
    if not found:
        expected = " or ".join(str(folder) for folder in _image_folders(root, tables[0]))
        raise ValueError(f"The images of {tables[0]} are not there: expected {expected}.")
    if len({table for table, _ in found}) > 1:
        raise ValueError(
            f"{root} has several splits: give one of the files instead of the folder: "
            f"{', '.join(str(table) for table, _ in found)}."
        )
    return found[0]


def _image_folders(root: Path, table: Path) -> list[Path]:
    split = table.stem.removeprefix("instances_")
    return [root / split, root / "images" / split]


def _read(table: Path) -> Any:
    try:
        read: Any = importlib.import_module("pycocotools.coco").COCO
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "COCO needs the package pycocotools: pip install 'captum_groupcam[bench]'",
            name=error.name,
        ) from error
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            index = read(str(table))
        expected = {"images": ("width", "height", "file_name"), "annotations": ("bbox", "area")}
        entries = [(one, kind) for kind in expected for one in index.dataset[kind]]
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{table}: not a JSON file of COCO's instances ({type(error).__name__}: {error})."
        ) from error
    for entry, kind in entries:
        for name in expected[kind]:
            if name not in entry:
                raise ValueError(f"{table}: entry {entry['id']} of {kind} has no {name!r}.")
    for annotation in index.dataset["annotations"]:
        if annotation["category_id"] not in index.cats:
            raise ValueError(
                f"{table}: annotation {annotation['id']} is of category "
                f"{annotation['category_id']}, which the file does not list."
            )
    return index


def _targets(index: Any, n_classes: int, table: Path) -> dict[int, tuple[int, ...]]:
    ids = sorted(index.cats)
    if n_classes == _N_DETECTION != len(ids) and max(ids) < _N_DETECTION:
        return {key: (key,) for key in ids}
    try:
        by_name = targets_by_category([index.cats[key]["name"] for key in ids], n_classes)
    except ValueError as error:
        raise ValueError(f"{table}: {error}") from error
    return {key: by_name[index.cats[key]["name"]] for key in ids}
