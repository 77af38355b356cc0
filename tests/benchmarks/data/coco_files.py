"""COCO files in parts: images, annotations and the folders that they lie in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.data import DATASETS, Dataset

SQUARE = [[1, 1, 6, 1, 6, 6, 1, 6]]


def picture(path: Path, size: tuple[int, int] = (40, 30), **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (7, 7, 7)).save(path, **options)


def image(key: Any, name: str, **changes: Any) -> dict[str, Any]:
    entry = {"id": key, "file_name": name, "width": 40, "height": 30} | changes
    return {name: value for name, value in entry.items() if value is not None}


def annotation(key: Any, image_id: Any, category: Any = 1, **changes: Any) -> dict[str, Any]:
    entry = {
        "id": key,
        "image_id": image_id,
        "category_id": category,
        "bbox": [1, 1, 5, 5],
        "segmentation": SQUARE,
        "area": 25,
        "iscrowd": 0,
    } | changes
    return {name: value for name, value in entry.items() if value is not None}


def write(
    path: Path,
    images: list[Any],
    annotations: list[Any],
    categories: list[Any] | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": categories or [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def coco(root: Path, *content: Any, pictures: tuple[str, ...] = ("a.jpg",)) -> Path:
    """A folder with a file in COCO's own place."""
    for name in pictures:
        picture(root / "val2017" / name)
    write(root / "annotations/instances_val2017.json", *content)
    return root


def load(root: Path, name: str = "coco", classes: tuple[str, ...] = ("dog", "cat")) -> Dataset:
    return DATASETS[name](root, list(classes))


def reasons(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {reason: dataset.left_out.names(reason) for reason in dataset.left_out}


def run_lengths(height: int, width: int, x: int, y: int) -> dict[str, Any]:
    """A mask of one pixel."""
    before = x * height + y
    return {"size": [height, width], "counts": [before, 1, height * width - before - 1]}
