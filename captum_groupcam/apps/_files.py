"""The files that ``explain`` writes: their names, and whether they can be written."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from captum_groupcam.methods import MethodSpec

__all__ = ["check_folder", "file_part", "output_names"]

#: The longest name of a file that file systems take, in bytes.
_LONGEST = 255
#: The longest part of it that says the method, in characters.
_LONGEST_PART = 40


def file_part(spec: MethodSpec) -> str:
    """A method with its options as part of a file's name: another for any other, always the same.

    Examples::

        >>> file_part(MethodSpec.parse("layer_cam:smooth=flips"))
        'layer_cam_smooth=flips'
        >>> file_part(MethodSpec.parse("layer_cam"))
        'layer_cam'
    """
    # Some systems take no colon.
    whole = str(spec).replace(":", "_", 1)
    part = re.sub(r"[^\w.,=+()-]", "_", whole)[:_LONGEST_PART]
    mark = "" if part == whole else f"_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    return part + mark


def output_names(files: list[Path], method: str, folder: Path) -> list[str]:
    """Names the overlays: no two alike, none that of an input in the same folder, none too long.

    Examples::

        >>> output_names([Path("a/cat.png"), Path("b/cat.jpg")], "group_cam", Path("out"))
        ['cat_group_cam.png', 'cat_group_cam_2.png']
    """
    # Case does not tell files apart on every system.
    taken = {file.name.casefold() for file in files if file.resolve().parent == folder.resolve()}
    names = []
    for file in files:
        name, copy = _name(file.stem, method, ""), 1
        while name.casefold() in taken:
            copy += 1
            name = _name(file.stem, method, f"_{copy}")
        taken.add(name.casefold())
        names.append(name)
    return names


def _name(stem: str, method: str, copy: str) -> str:
    end = f"_{method}{copy}.png"
    while len(os.fsencode(stem + end)) > _LONGEST:
        stem = stem[:-1]
    return stem + end


def check_folder(folder: Path) -> None:
    """Finds out whether files can be written to a folder, before anything is computed."""
    trial = folder / f".{os.getpid()}.trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise OSError(f"Nothing can be written to --out {folder}: {error.strerror}.") from error
