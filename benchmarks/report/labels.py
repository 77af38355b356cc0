"""Labels of points that do not lie on one another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

__all__ = ["place_labels"]

_DISTANCES = (6, 12, 20, 30, 42, 56, 72, 90, 110)  # in points
_ANGLES = np.deg2rad((0, 30, -30, 60, -60, 90, -90, 180, 150, 210, 120, 240))
_FONT_SIZE = 7
#: A label that finds no place goes where it covers least.
_OUTSIDE = 1e6
#: A label that is nearer to another point than to its own is taken for the other's.
_MISREAD = 1e3


def place_labels(
    axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], labels: Sequence[str]
) -> None:
    """Writes a label beside each point, as near as there is room, with a thin line to the point.

    Greedy: each label takes the first place, going outwards, where it covers neither a point nor
    a label and lies within the axes.

    Args:
        axes (matplotlib.axes.Axes): Limits and scales are final.
        x (numpy.ndarray): N, in data coordinates.
        y (numpy.ndarray): N.
        labels (sequence of str): N.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # sizes are known from here on
    pixels = figure.dpi / 72
    points = axes.transData.transform(np.column_stack([x, y]))
    taken = [Bbox.from_bounds(px - 4, py - 4, 8, 8) for px, py in points]
    inside = axes.bbox
    for (px, py), xi, yi, label in zip(points, x, y, labels, strict=True):
        text = axes.annotate(
            label, (xi, yi), xytext=(0, 0), textcoords="offset points", fontsize=_FONT_SIZE,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "#8a8a8a", "linewidth": 0.5, "shrinkB": 2},
        )  # fmt: skip
        text.set_in_layout(False)  # the axes stay where they are
        size = Text.get_window_extent(text)  # without its line
        best: tuple[float, Bbox, tuple[float, float]] | None = None
        for distance, angle in product(_DISTANCES, _ANGLES):
            dx, dy = distance * np.cos(angle) * pixels, distance * np.sin(angle) * pixels
            # The side that faces the point stays at that distance.
            dy += np.sin(angle) * size.height / 2
            left = dx if np.cos(angle) > 0.1 else dx - size.width
            if abs(np.cos(angle)) <= 0.1:
                left = dx - size.width / 2
            box = Bbox.from_bounds(px + left, py + dy - size.height / 2, size.width, size.height)
            covered = sum(_overlap(box, other) for other in taken)
            own = _distance(box, px, py)
            if any(_distance(box, *point) < own for point in points):
                covered += _MISREAD
            if not (inside.x0 <= box.x0 and box.x1 <= inside.x1):
                covered += _OUTSIDE
            if not (inside.y0 <= box.y0 and box.y1 <= inside.y1):
                covered += _OUTSIDE
            if best is None or covered < best[0]:
                best = covered, box, (left / pixels, dy / pixels)
            if covered == 0:
                break
        assert best is not None
        _, box, offset = best
        taken.append(box)
        text.set_position(offset)


def _distance(box: Bbox, x: float, y: float) -> float:
    return float(np.hypot(max(box.x0 - x, x - box.x1, 0), max(box.y0 - y, y - box.y1, 0)))


def _overlap(first: Bbox, second: Bbox) -> float:
    shared = Bbox.intersection(first, second)
    return 0.0 if shared is None else float(shared.width * shared.height)
