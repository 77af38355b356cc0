"""What the tests of COCO, VOC and ImageNet share: pictures, XML files and classes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from benchmarks.data import Dataset


def numbered(n: int) -> list[str]:
    """Classes whose names say nothing."""
    return [f"class {index}" for index in range(n)]


def picture(path: Path, size: tuple[int, int] = (40, 30), shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade,) * 3).save(path)


def samples(dataset: Dataset) -> dict:
    return {one.id: one for one in dataset}


def voc_xml(path: Path, objects: list[tuple], size: tuple[int, int] = (40, 30)) -> None:
    parts = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin>"
        f"<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>"
        "</bndbox></part></object>"
        for name, difficult, x0, y0, x1, y1 in objects
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        f"{parts}</annotation>"
    )
