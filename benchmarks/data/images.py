"""Any folder of pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from captum_groupcam.images import open_image, scan_images

from ._samples import Dataset, LeftOut, Sample, in_turn, printable
from .categories import N_IMAGENET, ClassIndex, names_of_classes
from .imagenet import wordnet_ids

__all__ = ["images"]

_WNID = re.compile(r"n\d{8}")


def images(root: str | Path | None = None, class_names: Sequence[str] | None = None) -> Dataset:
    """Any folder of pictures, nested or flat, or a single picture.

    .. code-block:: text

        root/tabby/*.jpg      of the class tabby
        root/more/*.png       of the class that the network predicts, if it has no class "more"
        root/*.tiff           the same

    A picture is of the class that the folder around it is called like, or the next folder above it,
    if that is a class of the network: by its name, whatever its case and whether its words are
    joined by a space, ``_`` or ``-``, or by its WordNet id for a network of ImageNet. Otherwise the
    class that the network predicts is explained; the data set's notes say of how many.

    Samples take turns among the folders and are named by the pictures' paths below the root. They
    do not know where their objects are.

    Args:
        root (str or Path): The folder, or a picture.
        class_names (sequence of str, optional): A name for each class of the network. Default:
            None, ImageNet's 1000.

    Returns:
        Dataset: The samples. A damaged picture is a failure when its turn comes; other files, and
        what is hidden, are counted in `left_out`.

    Raises:
        ValueError: If there is no such folder, or no picture in it.

    Examples::

        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "tiger_cat").mkdir()
        >>> Image.new("RGB", (40, 30)).save(root / "tiger_cat" / "tom.png")
        >>> [(sample.id, sample.targets, sample.label) for sample in images(root)]
        [('tiger_cat/tom.png', (282,), 'tiger_cat')]
    """
    if root is None:
        raise ValueError(
            "This data set needs its folder (--root FOLDER): pictures, nested or flat."
        )
    root = Path(root)
    names = names_of_classes(class_names)
    find = _finder(names)
    scan, left_out = scan_images(root), LeftOut()
    base = root.parent if root.is_file() else root
    for reason, paths in scan.left_out.items():
        for path in paths:
            left_out.add(reason, path.relative_to(base).as_posix())
    if not scan.images:
        found = "; ".join(left_out.lines()) or "it is empty"
        raise ValueError(f"Expected pictures below {root}, there are none: {found}.")
    by_folder: dict[Path, list[tuple[str, Callable[[], Sample]]]] = {}
    without: list[str] = []
    for path in scan.images:
        below = path.relative_to(base)
        name = printable(below.as_posix())
        label = next((part for part in reversed(below.parts[:-1]) if find(part)), None)
        if label is None:
            without.append(name)
        targets = tuple(range(len(names))) if label is None else find(label)
        load = partial(_load, name, path, targets, printable(label or ""))
        by_folder.setdefault(path.parent, []).append((name, load))
    return Dataset(
        in_turn(by_folder.values(), left_out),
        has_objects=False,
        left_out=left_out,
        notes=_notes(without, len(scan.images)),
    )


def _load(name: str, path: Path, targets: tuple[int, ...], label: str) -> Sample:
    return Sample(name, open_image(path), targets, label, file=path)


def _finder(class_names: Sequence[str]) -> Callable[[str], tuple[int, ...]]:
    """Finds the classes that a folder is called like."""
    by_name = ClassIndex(class_names)
    wnids: dict[str, tuple[int, ...]] = {}

    def find(folder: str) -> tuple[int, ...]:
        if len(class_names) == N_IMAGENET and _WNID.fullmatch(folder):
            if not wnids:
                wnids.update({wnid: (index,) for index, wnid in enumerate(wordnet_ids())})
            return wnids.get(folder, ())
        return by_name.find(folder)

    return find


def _notes(without: Sequence[str], n_images: int) -> list[str]:
    if not without:
        return []
    if len(without) == n_images:
        return [
            "No folder is named like a class of the network: every picture is explained for the "
            "class that the network predicts."
        ]
    return [
        f"{len(without)} of {n_images} pictures are explained for the class that the network "
        "predicts, since no folder above them is named like a class of the network: "
        f"{', '.join(without[:10])}{', ...' * (len(without) > 10)}."
    ]
