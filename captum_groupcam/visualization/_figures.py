"""What all figures share: colours, sizes, and how one is written."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

__all__ = ["INCH", "POSITIVE_COLORS", "SIGNED_COLORS", "save_figure"]

#: Colour map of maps without negative values: its lightness rises steadily, for every kind of eye.
POSITIVE_COLORS = "inferno"
#: Colour map of signed maps: purple against orange, which colour-blind people can tell apart.
SIGNED_COLORS = "PuOr_r"
#: Width of one picture of several.
INCH = 2.6


def save_figure(figure: Figure, path: str | Path, *, dpi: float = 150) -> Path:
    """Writes a figure, making the folder if there is none.

    Args:
        figure (matplotlib.figure.Figure): The figure.
        path (str or Path): Where to; the suffix says the format (.png, .pdf, .svg, ...).
        dpi (float, optional): Pixels per inch. Default: 150.

    Returns:
        Path: The path.

    Examples::

        >>> import tempfile
        >>> save_figure(Figure(), Path(tempfile.mkdtemp()) / "new" / "figure.png").name
        'figure.png'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)
    return path
