"""What the data sets with annotated objects share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree

import torch
from PIL import Image
from torch import Tensor

from captum_groupcam.images import ImageError, open_image

from ._samples import Sample

__all__ = ["AnnotatedObject", "Annotation", "Box", "boxes_tensor", "cannot_be_read", "inside"]
__all__ += ["is_difficult", "open_annotated", "read_xml"]

#: x0, y0, x1, y1 in pixels of the image, ends exclusive.
Box: TypeAlias = tuple[float, float, float, float]


def inside(box: Sequence[float], width: float, height: float) -> Box | None:
    """The part of a box that lies in the image.

    Args:
        box (sequence of float): x0, y0, x1, y1 in pixels, ends exclusive.
        width (float): Width of the image.
        height (float): Height of the image.

    Returns:
        tuple of float or None: None if the part has no area.

    Examples::

        >>> inside((-5, 10, 20, 30), width=40, height=25)
        (0, 10, 20, 25)
        >>> inside((40, 0, 50, 30), width=40, height=25)
    """
    x0, y0, x1, y1 = box
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def boxes_tensor(boxes: Sequence[Box]) -> Tensor:
    """Boxes as samples have them: B x 4, double precision."""
    return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)


def is_difficult(areas: Sequence[float], image_area: float, n_categories: int) -> bool:
    """Whether an image with one of its categories is of the difficult subset.

    It is if the boxes (or segments) of the category have less than a quarter of the image's area in
    total, and the image shows another category, which might distract: Zhang et al., Top-down Neural
    Attention by Excitation Backprop (arXiv:1608.00507), section 4.1. Areas are added up, so what
    two boxes share counts twice.

    Args:
        areas (sequence of float): Areas of the category's objects, in pixels.
        image_area (float): Area of the image, in pixels.
        n_categories (int): Number of categories that are annotated in the image.

    Examples::

        >>> is_difficult([10.0, 14.0], image_area=100.0, n_categories=2)
        True
        >>> is_difficult([10.0, 14.0], image_area=100.0, n_categories=1)
        False
    """
    return sum(areas) < image_area / 4 and n_categories > 1


def open_annotated(path: Path, width: int, height: int) -> Image.Image:
    """Opens an image whose objects are annotated, in the pixels that they count.

    These are the pixels as they are stored or, if only so the image has the size that was
    annotated, turned as the camera noted (EXIF orientation).

    Args:
        path (Path): The file.
        width (int): Width of the image that was annotated.
        height (int): Its height.

    Raises:
        ImageError: If the file is missing or damaged, or an image of another size, so that boxes
            would not fit.
    """
    image = open_image(path, upright=False)
    if image.size == (height, width) != (width, height):
        image = open_image(path)
    if image.size != (width, height):
        raise ImageError(
            f"{path}: {image.width} x {image.height} pixels, but the image that was annotated has "
            f"{width} x {height}"
        )
    return image


def cannot_be_read(reason: str) -> Sample:
    """Loads a sample of which is known that it cannot be: raises ImageError."""
    raise ImageError(reason)


@dataclass(frozen=True)
class AnnotatedObject:
    """An object in an annotation: its class and box as they are written, and VOC's flag."""

    name: str
    corners: Box
    difficult: bool


@dataclass(frozen=True)
class Annotation:
    """An annotation file of PASCAL VOC or ILSVRC."""

    width: int
    height: int
    objects: list[AnnotatedObject]


def read_xml(path: str | Path) -> Annotation:
    """Reads an annotation in the XML of PASCAL VOC, which is also that of ILSVRC.

    Args:
        path (str or Path): The file.

    Raises:
        ImageError: If it is missing, damaged or not such a file.
    """
    try:
        root = ElementTree.parse(path).getroot()  # noqa: S314  expat limits entities
        objects = [
            AnnotatedObject(
                _text(element, "name"),
                (
                    float(_text(element, "bndbox/xmin")),
                    float(_text(element, "bndbox/ymin")),
                    float(_text(element, "bndbox/xmax")),
                    float(_text(element, "bndbox/ymax")),
                ),
                element.findtext("difficult", "0").strip() == "1",
            )
            for element in root.findall("object")
        ]
        return Annotation(int(_text(root, "size/width")), int(_text(root, "size/height")), objects)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such annotation file") from error
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise ImageError(f"{path}: cannot be read as an annotation ({error})") from error


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{element.tag}> has no {path}")
    return text.strip()
