"""ImageNet validation as torchvision reads it, with ILSVRC's boxes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from captum_groupcam.images import FolderScan, ImageError, open_image, scan_images

from ._imagenet_labels import LABEL_FILES, read_labels
from ._objects import boxes_tensor, inside, open_annotated, read_xml
from ._samples import (
    Dataset,
    LeftOut,
    Sample,
    existing_folder,
    in_turn,
    printable,
)
from .categories import (
    N_IMAGENET,
    names_of_classes,
    no_class,
    targets_by_category,
)

__all__ = ["imagenet", "wordnet_ids"]

#: Where the validation images are looked for, below the root.
_IMAGE_FOLDERS = ("val", "ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val")
#: Where the XML files with ILSVRC's boxes are looked for, below the root.
_BOX_FOLDERS = (
    "bbox/val",
    "Annotations/CLS-LOC/val",
    "ILSVRC/Annotations/CLS-LOC/val",
    "ILSVRC2012_bbox_val_v3/bbox/val",
    "ILSVRC2012_bbox_val_v3/val",
)
#: What may lie beside the folders of the classes.
_NO_CLASSES = {Path(place).parts[0] for place in (*_BOX_FOLDERS, *LABEL_FILES)}
_CONTENT = "val/<wnid>/ or <wnid>/, a folder of images for each class (n01440764 is one)"
_FLAT = f"or val/ with all images and a label file beside it ({', '.join(LABEL_FILES[:3])}, ...)"


def imagenet(root: str | Path | None = None, class_names: Sequence[str] | None = None) -> Dataset:
    """ImageNet's validation images: one folder a class, or all in one folder with a label file.

    .. code-block:: text

        root/val/n01440764/*.JPEG      or root/n01440764/*.JPEG
        root/val/*.JPEG, root/val.txt  or another label file
        root/bbox/val/*.xml            ILSVRC's boxes, where there are any

    Label files are known by their names and may hold: names of files with classes from 0
    (``val.txt``) or WordNet ids (Kaggle's ``LOC_val_solution.csv``), WordNet ids alone in the order
    of the files' names (``synset_labels.txt``), or the devkit's numbers
    (``ILSVRC2012_validation_ground_truth.txt``, with ``meta.mat`` beside it). Kaggle's folders,
    ``ILSVRC/Data/CLS-LOC/val``, are found, too.

    The boxes, ``ILSVRC2012_bbox_val_v3.tgz`` of the challenge, are found in ``bbox/val``,
    ``Annotations/CLS-LOC/val``, ``ILSVRC/Annotations/CLS-LOC/val`` or below
    ``ILSVRC2012_bbox_val_v3``; without them samples do not know where their objects are. They count
    pixels from 0 and include the last one, as the challenge's own evaluation does; boxes here have
    exclusive ends. Images must have the size that was annotated.

    Samples take turns among the classes, in the order of their wnids, so that the first ones are
    spread over all classes; inside of a class they are sorted by file name. They are named
    ``wnid/file``, and their label is the wnid, since two pairs of classes share a name.

    Args:
        root (str or Path): The folder.
        class_names (sequence of str, optional): A name for each class of the network: ImageNet's
            1000, or those of the folders, in the order of the folders' names or called like them.
            Default: None, ImageNet's.

    Returns:
        Dataset: The samples. One whose image is damaged, or that has no XML file or no object of
        its class in it though there are XML files, is a failure when its turn comes.

    Raises:
        ValueError: If there are no such images, a folder is of no ImageNet class, the label file
            cannot be understood, or the number of classes fits nothing.
        ModuleNotFoundError: If timm is missing, with the command that installs it.
    """
    root = existing_folder(root, f"{_CONTENT}, {_FLAT}")
    names = names_of_classes(class_names)
    base = next((root / one for one in _IMAGE_FOLDERS if (root / one).is_dir()), root)
    folders = sorted(
        folder.name
        for folder in base.iterdir()
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in _NO_CLASSES
    )
    scan, left_out = scan_images(base), LeftOut()
    if folders:
        notes = []
        labels = _by_folder(base, scan, folders, left_out)
        targets = _targets(folders, names, base)
    else:
        table = _label_file(root, base, scan)
        notes = [f"The labels are those of {table}."]
        labels = _by_table(table, base, scan, left_out, len(names))
        targets = _targets(sorted(set(labels.values())), names, table)

    boxes = next((root / place for place in _BOX_FOLDERS if (root / place).is_dir()), None)
    by_class: dict[str, list[tuple[str, Callable[[], Sample]]]] = {label: [] for label in targets}
    for path, label in labels.items():
        below = path.relative_to(base / label if folders else base)
        name = printable(f"{label}/{below.as_posix()}")
        if targets[label]:
            load = partial(_load, name, path, label, targets[label], boxes)
            by_class[label].append((name, load))
        else:
            left_out.add(no_class(label, names), name)
    return Dataset(in_turn(by_class.values(), left_out), boxes is not None, left_out, notes)


def _by_folder(
    base: Path, scan: FolderScan, folders: Sequence[str], left_out: LeftOut
) -> dict[Path, str]:
    """The label of each image: the name of the folder that it lies in."""
    known = set(folders)
    top = {path: path.relative_to(base).parts[0] for path in scan.images}
    labels = {path: label for path, label in top.items() if label in known}
    for path in scan.images:
        if path.parent == base:
            left_out.add("beside the folders of the classes", path.name)
    for reason, paths in scan.left_out.items():
        for path in paths:
            if path.relative_to(base).parts[0] in known:
                left_out.add(reason, path.relative_to(base).as_posix())
    if not labels:
        raise ValueError(
            f"Expected a folder with {_CONTENT}, {_FLAT}: there is no image in the folders of "
            f"{base} ({', '.join(folders[:5])}{', ...' * (len(folders) > 5)})"
            + "".join(f"; {line}" for line in left_out.lines())
        )
    return labels


def _label_file(root: Path, base: Path, scan: FolderScan) -> Path:
    """The label file of images that lie in one folder."""
    places = [place / name for name in LABEL_FILES for place in dict.fromkeys((root, base))]
    n_images = sum(path.parent == base for path in scan.images)
    for place in places if n_images else []:
        if place.is_file():
            return place
    raise ValueError(
        f"Expected a folder with {_CONTENT}, {_FLAT}: "
        + (
            f"{base} has {n_images} images, but there is no such file in {root}. Without labels "
            "they are explained by the data set 'images'."
            if n_images
            else f"there is no image below {base}."
        )
    )


def _by_table(
    table: Path, base: Path, scan: FolderScan, left_out: LeftOut, n_classes: int
) -> dict[Path, str]:
    """The label of each image by a file: a WordNet id, or the number of a class of the network."""
    for reason, paths in scan.left_out.items():
        for path in paths:
            if path.parent == base and path.name not in LABEL_FILES:
                left_out.add(reason, path.name)
    images = [path for path in scan.images if path.parent == base]
    labels = read_labels(table, images, left_out)
    for path, label in labels.items():
        if label.isdecimal():
            if int(label) >= n_classes:
                raise ValueError(
                    f"{table}: {path.name} is of class {label}, but the network has {n_classes} "
                    f"classes (0 to {n_classes - 1})."
                )
            labels[path] = wordnet_ids()[int(label)] if n_classes == N_IMAGENET else label
    return labels


def _load(
    name: str, path: Path, label: str, targets: tuple[int, ...], boxes: Path | None
) -> Sample:
    if boxes is None:
        return Sample(name, open_image(path, upright=False), targets, label, file=path)
    table = boxes / f"{path.stem}.xml"
    annotation = read_xml(table)
    found = []
    for one in annotation.objects:
        xmin, ymin, xmax, ymax = one.corners
        box = inside((xmin, ymin, xmax + 1, ymax + 1), annotation.width, annotation.height)
        if one.name == label and box is not None:
            found.append(box)
    if not found:
        raise ImageError(f"{table}: no object of the class {label}")
    image = open_annotated(path, annotation.width, annotation.height)
    return Sample(name, image, targets, label, boxes=boxes_tensor(found), file=path)


def _targets(
    labels: Sequence[str], class_names: Sequence[str], place: Path
) -> dict[str, tuple[int, ...]]:
    """The network's class of each label."""
    if len(class_names) == N_IMAGENET:
        known = {wnid: index for index, wnid in enumerate(wordnet_ids())}
        for label in labels:
            if label not in known:
                raise ValueError(
                    f"{place}: {label} is not a class of ImageNet. Expected a folder with "
                    f"{_CONTENT}, {_FLAT}; folders of other names are explained by the data set "
                    "'images'."
                )
        return {label: (known[label],) for label in labels}
    if place.is_file() and all(label.isdecimal() for label in labels):
        return {label: (int(label),) for label in labels}
    try:
        return dict(zip(labels, targets_by_category(labels, class_names), strict=True))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def wordnet_ids() -> list[str]:
    """The WordNet ids of ImageNet's 1000 classes, in the order of the networks' outputs.

    Raises:
        ModuleNotFoundError: If timm, which has them, is missing, with the command that installs it.
    """
    try:
        info: Any = importlib.import_module("timm.data").ImageNetInfo()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The WordNet ids of ImageNet's classes come with timm: "
            "pip install 'captum_groupcam[bench]'",
            name=error.name,
        ) from error
    return list(info.label_names())
