"""Annotation files in COCO's format: found, read and checked, as annotation tools write them."""

from __future__ import annotations

import importlib
import json
import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captum_groupcam.images import ImageError, scan_images

from ._samples import LeftOut, existing_folder

__all__ = ["CONTENT", "CocoAnnotation", "CocoFile", "CocoImage", "Pictures", "decode"]
__all__ += ["find_table", "read_table"]

CONTENT = "annotations/instances_*.json and the folder of the images, named as the file says"


# --- the file and its pictures


def find_table(root: str | Path | None) -> tuple[Path, Path, list[str]]:
    """The JSON file, the folder below which its images lie, and what there is to say of the choice.

    Raises:
        ValueError: If there is no such file, or several that might be meant.
    """
    if root is not None and Path(root).is_file():
        table = Path(root)
        is_below = table.parent.name.lower() in ("annotations", "annotation", "labels")
        return table, table.parent.parent if is_below else table.parent, []
    root = existing_folder(root, CONTENT)
    tables = sorted((root / "annotations").glob("instances_*.json")) or sorted(
        path for pattern in ("*.json", "*/*.json") for path in root.glob(pattern) if _is_coco(path)
    )
    if not tables:
        raise ValueError(
            f"Expected a folder with {CONTENT}: no such file below {root}, nor another JSON file "
            "with images, annotations and categories."
        )
    chosen = [table for table in tables if any(f.is_dir() for f in _of_split(root, table))]
    chosen = chosen or tables
    if len(chosen) > 1:
        chosen = [one for one in chosen if "val" in one.relative_to(root).as_posix()] or chosen
    if len(chosen) > 1:
        raise ValueError(
            f"{root} has several splits: give one of the files instead of the folder: "
            f"{', '.join(map(str, chosen))}."
        )
    notes = [f"Of {len(tables)} files of annotations it is {chosen[0]}."] if tables[1:] else []
    return chosen[0], root, notes


def _is_coco(path: Path) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return all(key in content for key in (b'"images"', b'"annotations"', b'"categories"'))


def _of_split(root: Path, table: Path) -> list[Path]:
    split = table.stem.removeprefix("instances_")
    return [root / split, root / "images" / split]


class Pictures:
    """Finds the pictures that a file of annotations lists.

    Their names may have folders in front, be absolute, from another machine, or with backslashes.
    What does not lie where COCO, CVAT, Label Studio, Roboflow, labelme or FiftyOne put it is looked
    for everywhere below the root, by as much of its path as fits.

    Args:
        root (Path): The folder below which they lie.
        table (Path): The file.
    """

    def __init__(self, root: Path, table: Path) -> None:
        beside = table.parent
        places = [*_of_split(root, table), beside / "images", beside, root / "images", root]
        places += [root / name for name in ("JPEGImages", "data")]
        self._places = list(dict.fromkeys(places))
        self._root = root
        self._by_name: dict[str, list[Path]] | None = None

    @property
    def expected(self) -> str:
        """Where the pictures should lie."""
        return f"{self._places[0]} or {self._places[1]}, or anywhere below {self._root}"

    def find(self, name: str) -> Path:
        """The picture of this name.

        Raises:
            ImageError: If there is none, or several might be meant.
        """
        for place in self._places:
            path = place / name
            if _is_file(path):
                return path
        parts = Path(name).parts
        best: list[Path] = []
        for length in range(len(parts), 0, -1):
            best = [p for p in self._candidates(parts[-1]) if p.parts[-length:] == parts[-length:]]
            if best:
                break
        if len(best) == 1:
            return best[0]
        if best:
            raise ImageError(f"{name}: several pictures may be meant: {', '.join(map(str, best))}")
        raise ImageError(f"{name}: no such picture in {self.expected}")

    def has(self, name: str) -> bool:
        """Whether there is such a picture, or several."""
        return any(_is_file(place / name) for place in self._places) or bool(
            self._candidates(Path(name).name)
        )

    def size(self, name: str) -> tuple[int, int] | None:
        """Width and height of a picture as it is stored; None if it cannot be read."""
        try:
            with Image.open(self.find(name)) as image:
                return image.size
        except Exception:  # the reason is told when it is loaded
            return None

    def _candidates(self, name: str) -> Sequence[Path]:
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for path in scan_images(self._root).images:
                self._by_name[path.name].append(path)
        return self._by_name.get(name, ())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no system takes
        return False


# --- what the file says


@dataclass(frozen=True)
class CocoAnnotation:
    """An object.

    Attributes:
        name (str): What to call it in a message.
        category (str): The id of its category.
        box (tuple of float, optional): x, y, width, height; None without a valid one.
        segment: Polygons or run lengths as they are written, None if it has none.
        area (float, optional): Area of the segment; None if it is not given.
        flaw (str, optional): Why it is no object to hit, by its flags.
    """

    name: str
    category: str
    box: tuple[float, ...] | None
    segment: Any
    area: float | None
    flaw: str | None


@dataclass(frozen=True)
class CocoImage:
    """An image with its annotations; `size` is width and height, None if the file has none."""

    id: str
    file: str
    size: tuple[int, int] | None
    annotations: list[CocoAnnotation] = field(default_factory=list)


@dataclass(frozen=True)
class CocoFile:
    """What a file holds: names of categories by id, in the order of the ids, and images alike."""

    categories: dict[str, str]
    parents: set[str]
    images: list[CocoImage]


def read_table(table: Path, left_out: LeftOut) -> CocoFile:
    """Reads a file of annotations.

    Args:
        table (Path): The file.
        left_out (LeftOut): Notes what is malformed or belongs to nothing.

    Raises:
        ValueError: If it is no such file, or its categories are malformed.
    """
    try:
        content = json.loads(table.read_bytes())
        images, annotations, categories = (
            list(content[key]) for key in ("images", "annotations", "categories")
        )
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{table}: not a JSON file of COCO's instances ({type(error).__name__}: {error})."
        ) from error
    names, parents = _categories(table, categories)
    by_id = _images(images, left_out)
    for place, entry in enumerate(annotations):
        _add_annotation(place, entry, by_id, names, left_out)
    return CocoFile(names, parents, sorted(by_id.values(), key=lambda image: _order(image.id)))


def _id(value: Any) -> str | None:
    """An id, a number or text, in one form; None if it is neither."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    return str(value).strip() or None


def _order(key: str) -> tuple[int, int, str]:
    is_number = key.isascii() and key.isdecimal() and len(key) < 20
    return (0, int(key), "") if is_number else (1, 0, key)


def _categories(table: Path, entries: Sequence[Any]) -> tuple[dict[str, str], set[str]]:
    names: dict[str, str] = {}
    supercategories = []
    for place, entry in enumerate(entries):
        key = _id(entry.get("id")) if isinstance(entry, dict) else None
        if key is None or not isinstance(entry.get("name"), str):
            raise ValueError(f"{table}: categories[{place}] has no id or no name: {entry!r:.80}.")
        if names.setdefault(key, entry["name"]) != entry["name"]:
            raise ValueError(
                f"{table}: category {key} is listed twice, as {names[key]!r} and {entry['name']!r}."
            )
        supercategories.append(entry.get("supercategory"))
    names = {key: names[key] for key in sorted(names, key=_order)}
    return names, {key for key, name in names.items() if name in supercategories}


def _images(entries: Sequence[Any], left_out: LeftOut) -> dict[str, CocoImage]:
    found: dict[str, CocoImage] = {}
    twice = set()
    for place, entry in enumerate(entries):
        key = _id(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("file_name") if isinstance(entry, dict) else None
        file = _relative(name) if isinstance(name, str) else ""
        if key is None or not file:
            left_out.add("image without id or file_name", f"images[{place}]")
            continue
        width, height = entry.get("width"), entry.get("height")
        size = (int(width), int(height)) if _is_length(width) and _is_length(height) else None
        image = CocoImage(key, file, size)
        if found.setdefault(key, image) != image:
            twice.add(key)
    for key in twice:
        left_out.add("images that share their id", f"{found.pop(key).file} (image {key})")
    return found


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < 2**31 and value == int(value)


def _relative(name: str) -> str:
    r"""A file's name with slashes and without a drive, ``./`` and ``../`` in front."""
    name = name.replace("\\", "/")
    if name[1:3] == ":/":
        name = name[2:]
    while name.startswith(("/", "./", "../")):
        name = name.partition("/")[2]
    return name


def _add_annotation(
    place: int,
    entry: Any,
    images: Mapping[str, CocoImage],
    categories: Mapping[str, str],
    left_out: LeftOut,
) -> None:
    if not isinstance(entry, dict):
        left_out.add("malformed annotation", f"annotations[{place}]")
        return
    key = _id(entry.get("id"))
    name = f"annotations[{place}]" if key is None else f"annotation {key}"
    image = images.get(_id(entry.get("image_id")) or "")
    if image is None:
        left_out.add("of an image that the file does not list", name)
        return
    name = f"{name} of {image.file}"
    category = _id(entry.get("category_id")) or ""
    if category not in categories:
        left_out.add("of a category that the file does not list", name)
        return
    area, segment = _numbers([entry.get("area")], 1), entry.get("segmentation")
    corners = _numbers(entry.get("bbox"), 4)
    image.annotations.append(
        CocoAnnotation(
            name,
            category,
            box=None if corners is None else tuple(corners),
            segment=None if segment in ([], [[]], {}, "") else segment,
            area=area[0] if area and area[0] > 0 else None,
            flaw="crowd annotation"
            if entry.get("iscrowd") in (1, "1")
            else "flagged to be ignored"
            if entry.get("ignore") in (1, "1")
            else None,
        )
    )


def _numbers(values: Any, n: int | None = None) -> list[float] | None:
    """A list of finite numbers, `n` of them; None if it is something else."""
    if not isinstance(values, list) or (n is not None and len(values) != n):
        return None
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        return None
    try:
        numbers = [float(value) for value in values]
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


# --- segments


def decode(annotation: CocoAnnotation, width: int, height: int) -> NDArray[np.bool_]:
    """The pixels of an object: height x width.

    Args:
        annotation (CocoAnnotation): With polygons, or run lengths, compressed or not.
        width (int): Width of the image.
        height (int): Height of the image.

    Raises:
        ImageError: If the segment is malformed, or run lengths are of another size.
        ModuleNotFoundError: If pycocotools is missing, with the command that installs it.
    """
    try:
        with warnings.catch_warnings():  # it is behind NumPy 2's protocol; nothing is wrong
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            return _decode(annotation.segment, width, height)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # pycocotools raises nearly anything on damaged segments
        raise ImageError(f"{annotation.name}: its segment cannot be read ({error})") from error


#: Coordinates beyond are a mistake; drawing them would take gigabytes.
_FAR = 10**6


def _decode(segment: Any, width: int, height: int) -> NDArray[np.bool_]:
    if isinstance(segment, dict):
        if segment.get("size") != [height, width]:
            raise ValueError(
                f"its run lengths are of a picture of {segment.get('size')}, height and width, and "
                f"this one has {[height, width]}"
            )
        counts = segment.get("counts")
        if isinstance(counts, list):
            return _from_run_lengths(counts, width, height)
        compressed = {"size": [height, width], "counts": counts}
        return np.asarray(_pycocotools().decode(compressed), dtype=bool)
    # Some tools leave out the brackets around a single polygon.
    polygons = segment if isinstance(segment[0], list) else [segment]
    for polygon in polygons:
        corners = _numbers(polygon)
        if corners is None or len(corners) < 6 or len(corners) % 2:
            raise ValueError(
                f"a polygon is x, y, x, y, ... of three corners or more, got {polygon!r:.60}"
            )
        if max(map(abs, corners)) > _FAR:
            raise ValueError(f"a polygon has a corner at {max(corners, key=abs):g}")
    tools = _pycocotools()
    merged = tools.merge(tools.frPyObjects(polygons, height, width))
    return np.asarray(tools.decode(merged), dtype=bool)


def _from_run_lengths(counts: list[Any], width: int, height: int) -> NDArray[np.bool_]:
    """Pixels from lengths of runs, of background first, that go down column by column."""
    if not all(isinstance(count, int) and 0 <= count <= width * height for count in counts):
        raise ValueError("a run length is not a number of pixels")
    if sum(counts) != width * height:
        raise ValueError(f"its run lengths add up to {sum(counts)}, not to {width * height} pixels")
    values = np.arange(len(counts)) % 2 == 1
    mask: NDArray[np.bool_] = np.repeat(values, counts).reshape(width, height).T
    return mask


def _pycocotools() -> Any:
    try:
        return importlib.import_module("pycocotools.mask")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "COCO's masks need the package pycocotools: pip install 'captum_groupcam[bench]'",
            name=error.name,
        ) from error
