"""The pictures of a run: its first samples with their maps, and figures beside them."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from .configuration import mismatch
from .rows import write_atomically

__all__ = ["Gallery", "Shown", "file_name"]

#: Bytes of a file's name; most file systems take 255, and something is appended to it.
_LONGEST_NAME = 150


@dataclass(frozen=True, eq=False)
class Shown:
    """A sample of the gallery.

    Args:
        sample (str): Its id.
        title (str): The class that is explained.
        image (PIL.Image.Image): What the network sees.
        boxes (sequence): x0, y0, x1, y1 of the objects, in shares of the image.
        maps (mapping of str to numpy.ndarray): Method to map, H x W.
    """

    sample: str
    title: str
    image: Image.Image
    boxes: Sequence[Sequence[float]]
    maps: Mapping[str, np.ndarray]


class Gallery:
    """Where a run keeps its pictures.

    Each file is written all or nothing. What is damaged nevertheless is left out when they are
    read, and named.

    Args:
        path (Path): The run's folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, place: int, image: Image.Image, about: Mapping[str, Any]) -> None:
        """Keeps the picture of a sample and what is to be said about it.

        Args:
            place (int): Its place among the samples.
            image (PIL.Image.Image): What the network sees.
            about (mapping): As JSON: ``sample``, ``title``, ``boxes`` in shares of the image.

        Raises:
            RowError: If it cannot be written.
        """
        content = io.BytesIO()
        image.save(content, "PNG")
        write_atomically(self._of(place) / "image.png", content.getvalue())
        write_atomically(self._of(place) / "sample.json", json.dumps(about).encode())

    def keep_map(self, place: int, method: str, attribution: Tensor) -> None:
        """Keeps the map (1 x H x W) of a sample.

        Raises:
            RowError: If it cannot be written.
        """
        # Names with options are no file names everywhere.
        name, content = hashlib.sha256(method.encode()).hexdigest()[:16], io.BytesIO()
        np.savez_compressed(
            content,
            method=np.array(method),
            map=attribution.squeeze(0).float().cpu().numpy(),
        )
        write_atomically(self._of(place) / f"{name}.npz", content.getvalue())

    def keep_figure(self, name: str, figure: Figure, dpi: float = 150) -> None:
        """Keeps a figure, which the report shows by its name.

        Raises:
            RowError: If it cannot be written.
        """
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=dpi)
        write_atomically(self._figure(name), content.getvalue())

    def has_figure(self, name: str) -> bool:
        """Whether there is a figure of this name."""
        return self._figure(name).exists()

    def samples(self, methods: Iterable[str]) -> tuple[list[Shown], list[str]]:
        """The samples that are shown, with the maps of some methods.

        Args:
            methods (iterable of str): The methods, in their order.

        Returns:
            tuple: The samples, and in words what of them cannot be read.
        """
        methods = list(methods)
        shown: list[Shown] = []
        unreadable: list[str] = []
        for folder in sorted((self._path / "gallery").glob("*")):
            if not folder.is_dir():
                continue
            try:
                sample, title, boxes = _about(folder / "sample.json")
                image = _picture(folder / "image.png")
            except Exception as error:  # files may be damaged in any way
                unreadable.append(self._unreadable(folder, error))
                continue
            maps = {}
            for file in sorted(folder.glob("*.npz")):
                try:
                    method, values = _map(file, image)
                except Exception as error:
                    unreadable.append(self._unreadable(file, error))
                else:
                    maps[method] = values
            ordered = {method: maps[method] for method in methods if method in maps}
            shown.append(Shown(sample, title, image, boxes, ordered))
        return shown, unreadable

    def figures(self) -> tuple[list[Path], list[str]]:
        """The files of the figures, and in words which of them cannot be read."""
        readable: list[Path] = []
        unreadable: list[str] = []
        for file in sorted((self._path / "pictures").glob("*.png")):
            try:
                _picture(file)
            except Exception as error:
                unreadable.append(self._unreadable(file, error))
            else:
                readable.append(file)
        return readable, unreadable

    def _of(self, place: int) -> Path:
        return self._path / "gallery" / f"{place:05}"

    def _figure(self, name: str) -> Path:
        return self._path / "pictures" / f"{file_name(name, spaces=True)}.png"

    def _unreadable(self, path: Path, error: Exception) -> str:
        return f"{path.relative_to(self._path)}: {error}"


def file_name(text: str, *, spaces: bool = False) -> str:
    """A text without what file systems and shells take for something else, and not too long.

    Args:
        text (str): Any text.
        spaces (bool, optional): Whether spaces stay. Default: False.

    Examples::

        >>> file_name("rise:n_masks=50,seed=1 on a/b")
        'rise_n_masks=50,seed=1_on_a_b'
        >>> len(file_name("n" * 1000))
        150
    """
    name = re.sub(r"[^\w.=, -]+" if spaces else r"[^\w.=,-]+", "_", text)
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return name.encode()[: _LONGEST_NAME - 13].decode(errors="ignore") + f"_{digest}"


def _about(file: Path) -> tuple[str, str, list[list[float]]]:
    """Id, title and boxes of a sample that is shown."""
    about = json.loads(file.read_text(encoding="utf-8"))
    problem = mismatch(about, {"sample": str, "title": str, "boxes": [list]})
    if problem:
        raise ValueError(f"{file.name} does not say what is shown: {problem}")
    boxes = np.array(about["boxes"], dtype=float).reshape(-1, 4)
    if not np.isfinite(boxes).all():
        raise ValueError(f"{file.name} has boxes that are not finite")
    return about["sample"], about["title"], boxes.tolist()


def _picture(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def _map(file: Path, image: Image.Image) -> tuple[str, np.ndarray]:
    """The method and the map, which has the size of the image."""
    # Of a damaged file NumPy would leave the handle open.
    with np.load(io.BytesIO(file.read_bytes())) as entry:
        method, values = str(entry["method"]), entry["map"]
    fits = values.shape == (image.height, image.width) and values.dtype.kind == "f"
    if not fits or not np.isfinite(values).all():
        raise ValueError(f"no map of {image.width} x {image.height} finite values")
    return method, values
