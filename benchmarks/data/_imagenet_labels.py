"""Label files of ImageNet's validation images, as they go round."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ._samples import LeftOut

__all__ = ["LABEL_FILES", "read_labels"]

_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
#: Names of label files, the one that is taken first in front.
LABEL_FILES = (
    "LOC_val_solution.csv",
    "val.txt",
    "val.csv",
    "labels.txt",
    "labels.csv",
    "val_labels.txt",
    "synset_labels.txt",
    "imagenet_2012_validation_synset_labels.txt",
    _GROUND_TRUTH,
    f"ILSVRC2012_devkit_t12/data/{_GROUND_TRUTH}",
)
_WNID = re.compile(r"n\d{8}")


def read_labels(table: Path, files: Sequence[Path], left_out: LeftOut) -> dict[Path, str]:
    r"""Reads which class each image is of.

    ::

        val.txt                  ILSVRC2012_val_00000001.JPEG 65      classes from 0, by WordNet id
        LOC_val_solution.csv     ILSVRC2012_val_00000001,n01751748 111 108 ...
        synset_labels.txt        n01751748      a line for each image, in the order of the names
        ILSVRC2012_validation_ground_truth.txt
                                 490            the same, ids of the devkit: needs its meta.mat

    Args:
        table (Path): The file, in any of these forms; a header is passed over.
        files (sequence of Path): The images, in the order of their names.
        left_out (LeftOut): Notes images without a label and labels without an image.

    Returns:
        dict of Path to str: A WordNet id, or the number of a class, for each image that has one.

    Raises:
        ValueError: If the file is not of these forms; the message names the line.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{table}: cannot be read as text ({error}).") from error
    rows = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not rows:
        raise ValueError(f"{table}: it is empty.")
    if any(_split(line) is not None for _, line in rows):
        return _by_name(table, rows, files, left_out)
    return dict(zip(files, _in_order(table, rows, len(files)), strict=True))


def _split(line: str) -> tuple[str, str] | None:
    """File and label of a line, if it has both."""
    file, comma, rest = line.partition(",")
    parts = [file, rest] if comma else line.rsplit(None, 1)
    words = parts[-1].replace(",", " ").split()
    return (parts[0].strip(), words[0]) if len(parts) == 2 and words else None


def _is_label(text: str) -> bool:
    return _WNID.fullmatch(text) is not None or (text.isascii() and text.isdecimal())


def _by_name(
    table: Path, rows: Sequence[tuple[int, str]], files: Sequence[Path], left_out: LeftOut
) -> dict[Path, str]:
    by_name = {name: file for file in files for name in (file.stem, file.name)}
    labels: dict[Path, str] = {}
    for place, (number, line) in enumerate(rows):
        row = _split(line)
        if row is None or not _is_label(row[1]):
            if place == 0:
                continue  # a header
            raise ValueError(
                f"{table}, line {number}: expected a file and its class, a WordNet id or a number "
                f"from 0, got {line!r}."
            )
        name, label = row
        file = by_name.get(name) or by_name.get(name.replace("\\", "/").rsplit("/", 1)[-1])
        if file is None:
            left_out.add(f"in {table.name}, but there is no such image", name)
        elif labels.setdefault(file, label) != label:
            raise ValueError(
                f"{table}, line {number}: {name} is of class {label}, but of {labels[file]} in a "
                "line before."
            )
    for file in files:
        if file not in labels:
            left_out.add(f"no label in {table.name}", file.name)
    return {file: labels[file] for file in files if file in labels}


def _in_order(table: Path, rows: Sequence[tuple[int, str]], n_files: int) -> list[str]:
    for number, line in rows:
        if not _is_label(line):
            raise ValueError(f"{table}, line {number}: expected a class, got {line!r}.")
    if len(rows) != n_files:
        raise ValueError(
            f"{table}: it has {len(rows)} labels without names of files, for {n_files} images: "
            "expected as many, in the order of the images' names."
        )
    labels = [line for _, line in rows]
    if all(_WNID.fullmatch(label) for label in labels):
        return labels
    meta = table.with_name("meta.mat")
    if not meta.is_file():
        raise ValueError(
            f"{table}: numbers alone do not say which classes are meant, since ILSVRC's devkit has "
            f"an order of its own. Put the devkit's {meta.name} beside it, or give a file of "
            "WordNet ids, or of names of files and numbers from 0 in the order of the ids."
        )
    wnids = _devkit_wnids(meta)
    for (number, _), label in zip(rows, labels, strict=True):
        if label not in wnids:
            raise ValueError(f"{table}, line {number}: {meta} has no class {label}.")
    return [wnids[label] for label in labels]


def _devkit_wnids(meta: Path) -> dict[str, str]:
    """The WordNet id of each class of ILSVRC, by the devkit's number for it."""
    from scipy.io import loadmat  # of the bench extra; seldom needed

    read: Callable[..., Any] = loadmat
    try:
        synsets = read(meta, squeeze_me=True)["synsets"]
        return {
            str(int(one["ILSVRC2012_ID"])): str(one["WNID"])
            for one in synsets
            if int(one["num_children"]) == 0
        }
    except Exception as error:  # scipy raises nearly anything on other files
        raise ValueError(f"{meta}: not the meta.mat of ILSVRC's devkit ({error}).") from error
