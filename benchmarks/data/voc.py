"""PASCAL VOC: each image with each of its classes is a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torchvision.datasets import VOCDetection

from benchmarks.data._objects import (
    Annotation,
    Box,
    boxes_tensor,
    cannot_be_read,
    inside,
    is_difficult,
    open_annotated,
    read_xml,
)
from benchmarks.data._samples import Dataset, Sample, existing_folder
from benchmarks.data.categories import VOC_CATEGORIES, targets_by_category
from captum_groupcam.images import ImageError

__all__ = ["voc"]

_CONTENT = "VOCdevkit/VOC2007 or another year"


def voc(root: str | Path | None = None, n_classes: int = 1000) -> Dataset:
    """PASCAL VOC: each image with each of its classes is a sample, ``image:class``.

    ::

        root/VOCdevkit/VOC2012/    as torchvision's VOCDetection reads it

    The split is ``val``; of 2007, ``test`` if it is there, as in the papers. Of several years, give
    the folder of one (``root/VOCdevkit/VOC2007``). Networks with 20 outputs have VOC's classes in
    alphabetical order; with 1000, ImageNet's
    (:func:`~benchmarks.data.imagenet_classes`).

    Objects that VOC flags as difficult are objects to hit, but a class whose objects are all
    flagged makes no sample: so does the benchmark of TorchRay (``PointingGameBenchmark``, Fong et
    al., arXiv:1910.08485), which repeats that of Zhang et al. (arXiv:1608.00507). It is not to be
    mistaken for the difficult subset (:func:`~benchmarks.data.is_difficult`). What
    makes no sample is counted in `left_out`, object by object.

    VOC counts pixels from 1 and includes the last one; boxes here count from 0, ends exclusive, and
    are cut off at the image's border.

    Args:
        root (str or Path): The folder.
        n_classes (int, optional): Number of the network's classes. Default: 1000.

    Returns:
        Dataset: The samples in the order of the split's list and then of the classes. One whose
        image or annotation is missing, damaged, or does not fit the other is a failure when its
        turn comes.

    Raises:
        ValueError: If files are missing, an object is of a class that VOC does not have, or the
            number of classes fits nothing.
    """
    base, year, split = _find(root)
    by_category = targets_by_category(list(VOC_CATEGORIES.values()), n_classes)
    try:
        files = VOCDetection(str(base), year, split)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"VOC {year}, split {split}, cannot be read below {base}: {error}"
        ) from error

    loaders: dict[str, Callable[[], Sample]] = {}
    left_out: Counter[str] = Counter()
    for image, xml in zip(files.images, files.annotations, strict=True):
        stem = Path(image).stem
        try:
            annotation = read_xml(xml)
        except ImageError as error:
            loaders[stem] = partial(cannot_be_read, str(error))
            continue
        unknown = {one.name for one in annotation.objects} - set(VOC_CATEGORIES)
        if unknown:
            raise ValueError(f"{xml}: VOC has no class {sorted(unknown)[0]!r}.")
        for label, category in VOC_CATEGORIES.items():
            boxes = _boxes(annotation, label, bool(by_category[category]), left_out)
            if boxes:
                name = f"{stem}:{label}"
                loaders[name] = partial(
                    _load, name, Path(image), annotation, by_category[category], label, boxes
                )
    return Dataset(loaders, left_out=dict(left_out))


def _boxes(
    annotation: Annotation, label: str, has_targets: bool, left_out: Counter[str]
) -> list[Box]:
    """The boxes to hit, or none if the class makes no sample; counts what it leaves out."""
    objects = [one for one in annotation.objects if one.name == label]
    if not has_targets:
        if objects:
            left_out[f"no ImageNet class for {label!r}"] += len(objects)
        return []
    if all(one.difficult for one in objects):
        if objects:
            left_out["of a class whose objects in the image are all flagged difficult"] += len(
                objects
            )
        return []
    boxes = []
    for one in objects:
        xmin, ymin, xmax, ymax = one.corners
        box = inside((xmin - 1, ymin - 1, xmax, ymax), annotation.width, annotation.height)
        if box is None:
            left_out["box without area in the image"] += 1
        else:
            boxes.append(box)
    return boxes


def _load(
    name: str,
    path: Path,
    annotation: Annotation,
    targets: tuple[int, ...],
    label: str,
    boxes: list[Box],
) -> Sample:
    difficult = is_difficult(
        [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes],
        annotation.width * annotation.height,
        len({one.name for one in annotation.objects}),
    )
    image = open_annotated(path, annotation.width, annotation.height)
    corners = boxes_tensor(boxes)
    return Sample(name, image, targets, label, boxes=corners, difficult=difficult, file=path)


def _find(root: str | Path | None) -> tuple[Path, str, str]:
    """The folder with VOCdevkit, the year and the split."""
    root = existing_folder(root, _CONTENT)
    if root.name.startswith("VOC") and root.name[3:].isdecimal():
        years = [root]
    elif root.name == "VOCdevkit":
        years = sorted(root.glob("VOC[0-9]*"))
    else:
        years = sorted(root.glob("VOCdevkit/VOC[0-9]*"))
    if not years:
        raise ValueError(f"Expected a folder with {_CONTENT}: there is none below {root}.")
    if len(years) > 1:
        raise ValueError(
            f"{root} has several years: give the folder of one: {', '.join(map(str, years))}."
        )
    folder = years[0].absolute()
    has_test = (folder / "ImageSets/Main/test.txt").is_file()
    split = "test" if folder.name == "VOC2007" and has_test else "val"
    return folder.parent.parent, folder.name.removeprefix("VOC"), split
