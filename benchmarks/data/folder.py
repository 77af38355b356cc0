"""A folder of images with a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch

from captum_groupcam.images import ImageError, open_image

from ._samples import Dataset, Sample, existing_folder
from .categories import names_of_classes

__all__ = ["folder"]

#: What a table must have; it may have more.
_LABELS = ("file", "label")
_BOXES = (*_LABELS, "x0", "y0", "x1", "y1")

#: A box and the line of the table that it stands in.
_Box: TypeAlias = tuple[tuple[float, ...], int]


def folder(root: str | Path | None = None, class_names: Sequence[str] | None = None) -> Dataset:
    r"""A folder of images with a CSV of boxes, or of labels only.

    .. code-block:: text

        root/boxes.csv    file,label,x0,y0,x1,y1
        root/images/      the files

    One row a box: the file's name in ``images``, the index of the class, and the box in pixels of
    the stored image, ends exclusive. Other columns are ignored. The rows of one file and label are
    one sample, named ``file:label``. Samples come in the order of their first rows.

    Without ``boxes.csv`` it is ``labels.csv``, with the columns ``file`` and ``label``: samples
    that do not know where their objects are.

    Args:
        root (str or Path): The folder.
        class_names (sequence of str, optional): A name for each class of the network. Default:
            None, ImageNet's 1000.

    Returns:
        Dataset: The samples. One whose image is missing or damaged, or has a box that lies outside
        of it, is a failure when its turn comes.

    Raises:
        ValueError: If ``images`` or the table is missing, or the table is not as described; the
            message names the file and the line.

    Examples::

        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "images").mkdir()
        >>> Image.new("RGB", (40, 30)).save(root / "images" / "cat.png")
        >>> _ = (root / "boxes.csv").write_text("file,label,x0,y0,x1,y1\ncat.png,281,0,0,20,15\n")
        >>> (sample,) = folder(root)
        >>> sample.id, sample.targets, sample.boxes.tolist(), sample.image_size
        ('cat.png:281', (281,), [[0.0, 0.0, 20.0, 15.0]], (30, 40))
    """
    content = "images/ and boxes.csv (or labels.csv)"
    root = existing_folder(root, content)
    images, table = root / "images", root / "boxes.csv"
    has_boxes = table.is_file()
    if not has_boxes and (root / "labels.csv").is_file():
        table = root / "labels.csv"
    if not images.is_dir() or not table.is_file():
        missing = table if images.is_dir() else images
        raise ValueError(f"Expected a folder with {content}: there is no {missing}.")
    found: dict[tuple[str, int], list[_Box]] = {}
    n_classes = len(names_of_classes(class_names))
    for file, label, box in _rows(table, has_boxes, n_classes):
        found.setdefault((file, label), []).extend(box)
    if not found:
        raise ValueError(f"{table} has no rows below its header.")
    loaders = {
        f"{file}:{label}": partial(
            _load, f"{file}:{label}", images / file, label, boxes if has_boxes else None, table
        )
        for (file, label), boxes in found.items()
    }
    return Dataset(loaders, has_objects=has_boxes)


def _load(name: str, path: Path, label: int, boxes: Sequence[_Box] | None, table: Path) -> Sample:
    image = open_image(path, upright=False)  # as the boxes are
    if boxes is None:
        return Sample(name, image, (label,), str(label), file=path)
    for (x0, y0, x1, y1), line in boxes:
        if x0 >= image.width or y0 >= image.height or x1 <= 0 or y1 <= 0:
            raise ImageError(
                f"{path}: it has {image.width} x {image.height} pixels, so the box in line {line} "
                f"of {table} lies outside of it"
            )
    corners = torch.tensor([corners for corners, _ in boxes], dtype=torch.float64)
    return Sample(name, image, (label,), str(label), boxes=corners, file=path)


def _rows(table: Path, has_boxes: bool, n_classes: int) -> Iterator[tuple[str, int, list[_Box]]]:
    """File, label and box (if the table has boxes) of each row, checked."""
    columns = _BOXES if has_boxes else _LABELS
    # utf-8-sig: spreadsheets put a byte order mark in front.
    with table.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(
                    f"{table}, line 1: expected the columns {', '.join(columns)}; "
                    f"missing: {', '.join(missing)}."
                )
            for row in reader:
                where = f"{table}, line {reader.line_num}"
                if None in row or None in row.values():  # its signs of too many and too few
                    raise ValueError(
                        f"{where}: expected as many fields as the header has, got {row}."
                    )
                file, label, *corners = (row[name].strip() for name in columns)
                if not file:
                    raise ValueError(f"{where}: the name of the file is empty.")
                index = _class_index(label, n_classes, where)
                boxes = [(_corners(corners, where), reader.line_num)] if has_boxes else []
                yield file, index, boxes
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"{table}, after line {reader.line_num}: not a CSV in UTF-8 ({error})."
            ) from error


def _class_index(label: str, n_classes: int, where: str) -> int:
    if not (label.isascii() and label.isdecimal()):
        raise ValueError(f"{where}: a label is the index of a class, from 0, got {label!r}.")
    if int(label) >= n_classes:
        raise ValueError(
            f"{where}: label {label}, but the network has {n_classes} classes "
            f"(0 to {n_classes - 1})."
        )
    return int(label)


def _corners(corners: Sequence[str], where: str) -> tuple[float, ...]:
    try:
        x0, y0, x1, y1 = (float(corner) for corner in corners)
    except ValueError:
        x0 = y0 = x1 = y1 = math.nan
    if not (-math.inf < x0 < x1 < math.inf and -math.inf < y0 < y1 < math.inf):
        raise ValueError(
            f"{where}: a box is x0,y0,x1,y1 in pixels with x0 < x1 and y0 < y1, got "
            f"{','.join(corners)}."
        )
    return x0, y0, x1, y1
