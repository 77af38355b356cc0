"""The data sets by name: images with the class to explain and the boxes of its objects."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import normalize, to_tensor

from captum_groupcam.images import ImageError, open_image
from captum_groupcam.models import LoadedModel

__all__ = ["DATASETS", "Dataset", "Sample", "folder", "to_inputs"]

#: What a boxes CSV must have; it may have more.
_COLUMNS = ("file", "label", "x0", "y0", "x1", "y1")


@dataclass(frozen=True, eq=False)
class Sample:
    """An image, a class that it shows, and where.

    Attributes:
        id (str): Names the image together with the class.
        image (PIL.Image.Image): The image, RGB.
        target (int): Index of the class.
        boxes (Tensor): B x 4 boxes of the class (x0, y0, x1, y1) in pixels of the image, ends
            exclusive, double precision.
    """

    id: str
    image: Image.Image
    target: int
    boxes: Tensor

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image, whose pixels the boxes count."""
        return self.image.height, self.image.width


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples, each loaded when its turn comes.

    Iteration passes over a sample that cannot be loaded, but with a warning, and notes it in
    `failures`.

    Attributes:
        loaders (mapping of str to Callable): For each sample, by its id, the function that loads
            it. It raises :class:`~captum_groupcam.images.ImageError` if it cannot.
        failures (dict of str to str): Why samples could not be loaded, by their ids; of those that
            had their turn.
    """

    loaders: Mapping[str, Callable[[], Sample]]
    failures: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of samples, those that cannot be loaded included."""
        return len(self.loaders)

    def __iter__(self) -> Iterator[Sample]:
        for name, load in self.loaders.items():
            try:
                sample = load()
            except ImageError as error:
                self.failures[name] = str(error)
                warnings.warn(f"Sample {name} is left out: {error}", stacklevel=2)
            else:
                yield sample


#: A box and the line of the CSV that it stands in.
_Box: TypeAlias = tuple[tuple[float, ...], int]


def folder(root: str | Path) -> Dataset:
    r"""A folder of images with a CSV of boxes.

    ::

        root/boxes.csv    file,label,x0,y0,x1,y1
        root/images/      the files

    One row a box: the file's name in ``images``, the index of the class, and the box in pixels of
    the stored image, ends exclusive. Other columns are ignored. The rows of one file and label are
    one sample, named ``file:label``. Samples come in the order of their first rows.

    Args:
        root (str or Path): The folder.

    Returns:
        Dataset: The samples. One whose image is missing or damaged, or has a box that lies outside
        of it, is a failure when its turn comes.

    Raises:
        ValueError: If ``images`` or ``boxes.csv`` is missing, or the CSV is not as described; the
            message names the file and the line.

    Examples::

        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "images").mkdir()
        >>> Image.new("RGB", (40, 30)).save(root / "images" / "cat.png")
        >>> _ = (root / "boxes.csv").write_text("file,label,x0,y0,x1,y1\ncat.png,281,0,0,20,15\n")
        >>> (sample,) = folder(root)
        >>> sample.id, sample.target, sample.boxes.tolist(), sample.image_size
        ('cat.png:281', 281, [[0.0, 0.0, 20.0, 15.0]], (30, 40))
    """
    root = Path(root)
    images, table = root / "images", root / "boxes.csv"
    if not images.is_dir() or not table.is_file():
        missing = table if images.is_dir() else images
        raise ValueError(f"Expected a folder with images/ and boxes.csv: there is no {missing}.")
    found: dict[tuple[str, int], list[_Box]] = {}
    for file, label, box in _rows(table):
        found.setdefault((file, label), []).append(box)
    if not found:
        raise ValueError(f"{table} has no rows below its header.")
    return Dataset(
        {
            f"{file}:{label}": partial(_load, f"{file}:{label}", images / file, label, boxes, table)
            for (file, label), boxes in found.items()
        }
    )


#: Every data set: name to a function of its root folder.
DATASETS: dict[str, Callable[[str | Path], Dataset]] = {"folder": folder}


def to_inputs(samples: Sequence[Sample], model: LoadedModel) -> Tensor:
    """Turns images into what a network takes, none of it cut off.

    Each axis is resized (bicubic) to the size that the model's own preprocessing gives, and colours
    are normalised as the model wants. So boxes scale with the image; they are left as they are,
    since measures take the images' sizes beside them.

    Args:
        samples (sequence of Sample): N samples.
        model (LoadedModel): The network.

    Returns:
        Tensor: N x 3 x H x W, channels last, on the CPU.

    Raises:
        ValueError: If there are no samples.
    """
    if not samples:
        raise ValueError("Expected at least one sample, got none.")
    height, width = model.preprocess(Image.new("RGB", (64, 64))).shape[1:]
    resized = [
        to_tensor(sample.image.resize((width, height), Image.Resampling.BICUBIC))
        for sample in samples
    ]
    inputs: Tensor = normalize(torch.stack(resized), model.mean, model.std)
    return inputs.contiguous(memory_format=torch.channels_last)


def _load(name: str, path: Path, label: int, boxes: Sequence[_Box], table: Path) -> Sample:
    image = open_image(path, upright=False)  # as the boxes are
    for (x0, y0, x1, y1), line in boxes:
        if x0 >= image.width or y0 >= image.height or x1 <= 0 or y1 <= 0:
            raise ImageError(
                f"{path}: it has {image.width} x {image.height} pixels, so the box in line {line} "
                f"of {table} lies outside of it"
            )
    corners = torch.tensor([corners for corners, _ in boxes], dtype=torch.float64)
    return Sample(name, image, label, corners)


def _rows(table: Path) -> Iterator[tuple[str, int, _Box]]:
    """File, label and box of each row, checked."""
    # utf-8-sig: spreadsheets put a byte order mark in front.
    with table.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(
                    f"{table}, line 1: expected the columns {', '.join(_COLUMNS)}; "
                    f"missing: {', '.join(missing)}."
                )
            for row in reader:
                yield _row(row, f"{table}, line {reader.line_num}", reader.line_num)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"{table}, after line {reader.line_num}: not a CSV in UTF-8 ({error})."
            ) from error


def _row(row: dict[str, str | None], where: str, line: int) -> tuple[str, int, _Box]:
    if None in row or None in row.values():  # DictReader's signs of too many and too few
        raise ValueError(f"{where}: expected as many fields as the header has, got {row}.")
    file, label, *corners = (str(row[name]).strip() for name in _COLUMNS)
    if not file:
        raise ValueError(f"{where}: the name of the file is empty.")
    if not (label.isascii() and label.isdecimal()):
        raise ValueError(f"{where}: a label is the index of a class, from 0, got {label!r}.")
    try:
        x0, y0, x1, y1 = (float(corner) for corner in corners)
    except ValueError:
        x0 = y0 = x1 = y1 = math.nan
    if not (-math.inf < x0 < x1 < math.inf and -math.inf < y0 < y1 < math.inf):
        raise ValueError(
            f"{where}: a box is x0,y0,x1,y1 in pixels with x0 < x1 and y0 < y1, got "
            f"{','.join(corners)}."
        )
    return file, int(label), ((x0, y0, x1, y1), line)
