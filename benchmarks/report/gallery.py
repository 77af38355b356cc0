"""The gallery of a report: images, maps, and where each map points."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import torch
from PIL import Image

from captum_groupcam.visualization import overlay_pixels

from ..run.gallery import Shown
from .merged import MergedRows

__all__ = ["Mark", "Picture", "Strip", "strips"]

Mark: TypeAlias = Literal["hit", "miss", "tie", "none"]
_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """A picture of the gallery, with what is drawn on it.

    Args:
        title (str): What stands below.
        source (str): A data URI.
        width (int): In pixels.
        height (int): In pixels.
        boxes (sequence, optional): x, y, width, height in pixels. Default: none.
        point (tuple of float, optional): The map's maximum, in pixels. Default: None.
        mark (str, optional): ``hit``, ``miss``, ``tie`` (several maxima, some of which hit) or
            ``none``. Default: ``none``.
    """

    title: str
    source: str
    width: int
    height: int
    boxes: Sequence[tuple[float, float, float, float]] = field(default=())
    point: tuple[float, float] | None = None
    mark: Mark = "none"


@dataclass(frozen=True)
class Strip:
    """A sample's pictures.

    Args:
        sample (str): Its id.
        title (str): The class that is explained.
        pictures (sequence of Picture): The image, then the maps.
    """

    sample: str
    title: str
    pictures: Sequence[Picture]


def strips(
    gallery: Sequence[Shown], methods: Sequence[str], rows: MergedRows, measure: str | None
) -> list[Strip]:
    """The gallery's samples, each with the maps of all methods.

    Args:
        gallery (sequence of Shown): Images and maps.
        methods (sequence of str): The methods, in their order.
        rows (MergedRows): They say which maps hit.
        measure (str or None): The pointing game that they are taken from; None for no marks.
    """
    hits = rows.hits(measure, [shown.sample for shown in gallery])
    return [_strip(shown, methods, hits) for shown in gallery]


def _strip(shown: Shown, methods: Sequence[str], hits: Mapping[tuple[str, str], float]) -> Strip:
    width, height = shown.image.size
    boxes = [
        (x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height)
        for x0, y0, x1, y1 in shown.boxes
    ]
    image = torch.from_numpy(np.array(shown.image)).movedim(-1, 0) / 255
    pictures = [Picture(shown.title, _uri(shown.image), width, height, boxes)]
    for method in (method for method in methods if method in shown.maps):
        values = shown.maps[method]
        pixels = overlay_pixels(image, torch.from_numpy(values)[None])
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        hit = hits.get((shown.sample, method))
        flat = values.min() == values.max()
        pictures.append(
            Picture(
                method,
                _uri(Image.fromarray(pixels)),
                width,
                height,
                boxes,
                None if flat else (float(column) + 0.5, float(row) + 0.5),
                _mark(hit),
            )
        )
    return Strip(shown.sample, shown.title, pictures)


def _mark(hit: float | None) -> Mark:
    if hit is None:
        return "none"
    if hit in (0, 1):
        return "hit" if hit else "miss"
    return "tie"


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
