"""ImageNet validation as torchvision reads it, with ILSVRC's boxes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from benchmarks.data._objects import boxes_tensor, inside, open_annotated, read_xml
from benchmarks.data._samples import Dataset, Sample, existing_folder
from benchmarks.data.categories import N_IMAGENET
from captum_groupcam.images import SUFFIXES, ImageError, open_image

__all__ = ["imagenet", "wordnet_ids"]

#: Where the XML files with ILSVRC's boxes are looked for, below the root.
_BOX_FOLDERS = (
    "bbox/val",
    "Annotations/CLS-LOC/val",
    "ILSVRC/Annotations/CLS-LOC/val",
    "ILSVRC2012_bbox_val_v3/bbox/val",
    "ILSVRC2012_bbox_val_v3/val",
)
_CONTENT = "val/<wnid>/ or <wnid>/, a folder of images for each class (n01440764 is one)"


def imagenet(root: str | Path | None = None, n_classes: int = 1000) -> Dataset:
    """ImageNet's validation images, one folder a class.

    ::

        root/val/n01440764/*.JPEG      or root/n01440764/*.JPEG
        root/bbox/val/*.xml            ILSVRC's boxes, where there are any

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
        n_classes (int, optional): Number of the network's classes: 1000, or that of the folders for
            a network of those only, in the order of their names. Default: 1000.

    Returns:
        Dataset: The samples. One whose image is missing or damaged, or that has no XML file or no
        object of its class in it though there are XML files, is a failure when its turn comes.

    Raises:
        ValueError: If there are no such folders, one of them is of no ImageNet class, or the number
            of classes fits nothing.
        ModuleNotFoundError: If timm is missing, with the command that installs it.
    """
    root = existing_folder(root, _CONTENT)
    base = root / "val" if (root / "val").is_dir() else root
    others = {Path(place).parts[0] for place in _BOX_FOLDERS}
    folders = sorted(
        folder
        for folder in base.iterdir()
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in others
    )
    indices = _class_indices([folder.name for folder in folders], n_classes, base)
    boxes = next((root / place for place in _BOX_FOLDERS if (root / place).is_dir()), None)
    by_class = [
        sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        )
        for folder in folders
    ]
    loaders: dict[str, Callable[[], Sample]] = {}
    for file in chain.from_iterable(zip_longest(*by_class)):
        if file is not None:
            wnid = file.parent.name
            loaders[f"{wnid}/{file.name}"] = partial(_load, file, indices[wnid], boxes)
    if not loaders:
        raise ValueError(f"Expected a folder with {_CONTENT}: there is no image below {base}.")
    return Dataset(loaders, has_objects=boxes is not None)


def _load(path: Path, target: int, boxes: Path | None) -> Sample:
    wnid = path.parent.name
    name = f"{wnid}/{path.name}"
    if boxes is None:
        return Sample(name, open_image(path, upright=False), (target,), wnid, file=path)
    table = boxes / f"{path.stem}.xml"
    annotation = read_xml(table)
    found = []
    for one in annotation.objects:
        xmin, ymin, xmax, ymax = one.corners
        box = inside((xmin, ymin, xmax + 1, ymax + 1), annotation.width, annotation.height)
        if one.name == wnid and box is not None:
            found.append(box)
    if not found:
        raise ImageError(f"{table}: no object of the class {wnid}")
    image = open_annotated(path, annotation.width, annotation.height)
    return Sample(name, image, (target,), wnid, boxes=boxes_tensor(found), file=path)


def _class_indices(wnids: list[str], n_classes: int, base: Path) -> dict[str, int]:
    if n_classes != N_IMAGENET:
        if n_classes != len(wnids):
            raise ValueError(
                f"The network has {n_classes} classes, but {base} has {len(wnids)} folders: "
                f"expected {N_IMAGENET}, ImageNet's, or one for each folder."
            )
        return {wnid: index for index, wnid in enumerate(wnids)}
    known = {wnid: index for index, wnid in enumerate(wordnet_ids())}
    for wnid in wnids:
        if wnid not in known:
            raise ValueError(
                f"{base / wnid}: no class of ImageNet. Expected a folder with {_CONTENT}."
            )
    return {wnid: known[wnid] for wnid in wnids}


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
