"""PASCAL VOC: each image with each of its classes is a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torchvision.datasets import VOCDetection

from captum_groupcam.images import ImageError

from ._objects import (
    AnnotatedObject,
    Annotation,
    Box,
    boxes_tensor,
    cannot_be_read,
    inside,
    is_difficult,
    open_annotated,
    read_xml,
)
from ._samples import Dataset, LeftOut, Sample, existing_folder
from .categories import (
    VOC_CATEGORIES,
    names_of_classes,
    no_class,
    targets_by_category,
)

__all__ = ["voc"]

_ALL_DIFFICULT = "of a class whose objects in the image are all flagged difficult"
_CONTENT = "VOCdevkit/VOC2007 or another year"


def voc(root: str | Path | None = None, class_names: Sequence[str] | None = None) -> Dataset:
    """PASCAL VOC: each image with each of its classes is a sample, ``image:class``.

    .. code-block:: text

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
        class_names (sequence of str, optional): A name for each class of the network. Default:
            None, ImageNet's 1000.

    Returns:
        Dataset: The samples in the order of the split's list and then of the classes. One whose
        image or annotation is missing, damaged, or does not fit the other is a failure when its
        turn comes.

    Raises:
        ValueError: If files are missing, an object is of a class that VOC does not have, or the
            number of classes fits nothing.
    """
    base, year, split = _find(root)
    class_names = names_of_classes(class_names)
    targets = targets_by_category(
        list(VOC_CATEGORIES), class_names, coco_names=list(VOC_CATEGORIES.values())
    )
    by_label = dict(zip(VOC_CATEGORIES, targets, strict=True))
    try:
        files = VOCDetection(str(base), year, split)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"VOC {year}, split {split}, cannot be read below {base}: {error}"
        ) from error

    loaders: dict[str, Callable[[], Sample]] = {}
    left_out = LeftOut()
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
        for label, classes in by_label.items():
            name = f"{stem}:{label}"
            objects = [one for one in annotation.objects if one.name == label]
            if not classes:
                left_out.add(no_class(label, class_names), name, len(objects))
            elif all(one.difficult for one in objects):
                left_out.add(_ALL_DIFFICULT, name, len(objects))
            else:
                inner = [_box(one, annotation) for one in objects]
                boxes = [box for box in inner if box is not None]
                left_out.add("box without area in the image", name, len(inner) - len(boxes))
                if boxes:
                    loaders[name] = partial(
                        _load, name, Path(image), annotation, classes, label, boxes
                    )
    return Dataset(loaders, left_out=left_out)


def _box(one: AnnotatedObject, annotation: Annotation) -> Box | None:
    xmin, ymin, xmax, ymax = one.corners
    return inside((xmin - 1, ymin - 1, xmax, ymax), annotation.width, annotation.height)


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
