"""What all figures share: colours, sizes, and how one is written."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

__all__ = ["INCH", "POSITIVE_COLORS", "SIGNED_COLORS", "is_own_picture", "save_figure"]

#: Colour map of maps without negative values: its lightness rises steadily, for every kind of eye.
POSITIVE_COLORS = "inferno"
#: Colour map of signed maps: purple against orange, which colour-blind people can distinguish.
SIGNED_COLORS = "PuOr_r"
#: Width of one picture of several.
INCH = 2.6

#: Stands in every picture whose format has a place for it, by which it is known again.
_MADE_BY = "Made by captum_groupcam"
#: So many bytes at the beginning and at the end of a file are searched for it.
_SEARCHED = 2**16
#: Where formats have that place.
_PLACES = {"png": "Software", "svg": "Creator", "pdf": "Creator", "eps": "Creator", "ps": "Creator"}


def save_figure(figure: Figure, path: str | Path, *, dpi: float = 150) -> Path:
    """Writes a figure, all or nothing, making the folder if there is none.

    A link of this name is replaced, not what it points to.

    Args:
        figure (matplotlib.figure.Figure): The figure.
        path (str or Path): Where to; the suffix says the format (.png, .pdf, .svg, ...).
        dpi (float, optional): Pixels per inch. Default: 150.

    Returns:
        Path: The path.

    Examples::

        >>> import tempfile
        >>> path = save_figure(Figure(), Path(tempfile.mkdtemp()) / "new" / "figure.png")
        >>> path.name, is_own_picture(path)
        ('figure.png', True)
    """
    path = Path(path)
    kind = path.suffix[1:].lower() or "png"
    options: dict[str, Any] = {"metadata": {_PLACES[kind]: _MADE_BY}} if kind in _PLACES else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with unfinished.open("xb") as file:
            figure.savefig(file, dpi=dpi, format=kind, **options)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def is_own_picture(path: str | Path) -> bool:
    """Whether a file is a picture that :func:`save_figure` has written.

    Args:
        path (str or Path): A file.

    Returns:
        bool: Whether it is. A JPEG does not say so, nor a file that cannot be read.

    Examples::

        >>> is_own_picture("no picture of ours")
        False
    """
    try:
        with Path(path).open("rb") as file:
            begin = file.read(_SEARCHED)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _SEARCHED))
            return _MADE_BY.encode() in begin + file.read()
    except OSError:
        return False
