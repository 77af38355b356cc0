"""Maps of signals and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from captum_groupcam.visualization._figures import INCH, POSITIVE_COLORS, SIGNED_COLORS

__all__ = ["signal_plot", "volume_slices"]


def signal_plot(signal: Tensor, attribution: Tensor, *, title: str = "") -> Figure:
    """Makes a figure of a signal, coloured by its map; each channel has a row.

    Args:
        signal (Tensor): C x L.
        attribution (Tensor): 1 x L or L. Shown as signed if it has negative values.
        title (str, optional): Stands above all. Default: "".

    Returns:
        matplotlib.figure.Figure: The figure.

    Raises:
        ValueError: If shapes do not fit or the map is not finite.

    Examples::

        >>> import torch
        >>> figure = signal_plot(torch.rand(2, 16), torch.rand(1, 16), title="ECG")
        >>> len(figure.axes)  # two channels and the scale of the colours
        3
    """
    if signal.dim() != 2:
        raise ValueError(f"Expected a signal of shape C x L, got {tuple(signal.shape)}.")
    values = _map_like(attribution, signal.shape[1:])
    colors = _colors(values)
    figure = Figure(figsize=(8, 1 + 1.6 * len(signal)), layout="constrained")
    figure.suptitle(title)
    places = figure.subplots(len(signal), 1, sharex=True, squeeze=False).flatten()
    for axes, channel in zip(places, signal.detach().cpu().double().numpy(), strict=True):
        points = np.column_stack([np.arange(len(channel)), channel])
        # A piece of the line for each value, half way to its neighbours.
        halves = (points[1:] + points[:-1]) / 2
        starts = np.concatenate([points[:1], halves])
        ends = np.concatenate([halves, points[-1:]])
        pieces = np.stack([starts, points, ends], axis=1)
        axes.add_collection(LineCollection(list(pieces), array=values, linewidths=2.5, **colors))
        axes.set_facecolor("0.85")  # the ends of the colour maps are dark or bright
        axes.autoscale_view()
    places[-1].set_xlabel("position")
    figure.colorbar(places[0].collections[0], ax=list(places), label="map")
    return figure


def volume_slices(
    volume: Tensor,
    attribution: Tensor,
    *,
    n_slices: int = 6,
    alpha: float = 0.5,
    title: str = "",
) -> Figure:
    """Makes a figure of evenly spaced slices of a volume, each above the same with its map.

    Colours and greys mean the same in all slices.

    Args:
        volume (Tensor): 1 x D x H x W or D x H x W; slices are cut across D.
        attribution (Tensor): 1 x D x H x W or D x H x W. Shown as signed if it has negative values.
        n_slices (int, optional): Number of slices, at most D. Default: 6.
        alpha (float, optional): Opacity of the map, 0 to 1. Default: 0.5.
        title (str, optional): Stands above all. Default: "".

    Returns:
        matplotlib.figure.Figure: The figure.

    Raises:
        ValueError: If shapes do not fit, the map is not finite, or there is no slice to show.

    Examples::

        >>> import torch
        >>> figure = volume_slices(torch.rand(1, 8, 9, 9), torch.rand(1, 8, 9, 9), n_slices=2)
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['slice 2', 'slice 6']
    """
    solid = volume.squeeze(0) if volume.dim() == 4 else volume
    if solid.dim() != 3:
        raise ValueError(
            f"Expected a volume of shape 1 x D x H x W or D x H x W, got {tuple(volume.shape)}."
        )
    if n_slices < 1:
        raise ValueError(f"n_slices must be at least 1, got {n_slices}.")
    values = _map_like(attribution, solid.shape)
    colors = _colors(values)
    pixels = solid.detach().cpu().double().numpy()
    n_slices = min(n_slices, len(pixels))
    # The middle of each of so many equal parts.
    shown = [(2 * part + 1) * len(pixels) // (2 * n_slices) for part in range(n_slices)]
    height = INCH * pixels.shape[1] / pixels.shape[2]
    figure = Figure(figsize=(INCH * n_slices + 1.2, 2 * height + 0.6), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(2, n_slices, squeeze=False)
    for (above, below), depth in zip(grid.T, shown, strict=True):
        for axes in (above, below):
            axes.imshow(pixels[depth], cmap="gray", vmin=pixels.min(), vmax=pixels.max())
            axes.set_axis_off()
        above.set_title(f"slice {depth}")
        overlaid = below.imshow(values[depth], alpha=alpha, **colors)
    figure.colorbar(overlaid, ax=list(grid.flat), label="map")
    return figure


def _map_like(attribution: Tensor, size: Sequence[int]) -> np.ndarray:
    """A map of one sample as an array of its spatial size."""
    values = attribution.detach().cpu().double().numpy()
    if values.shape == (1, *size):
        values = values[0]
    if values.shape != tuple(size):
        raise ValueError(
            f"Expected a map of shape {(1, *size)}, like what it explains, got "
            f"{tuple(attribution.shape)}."
        )
    if not np.isfinite(values).all():
        raise ValueError("The map contains NaN or infinite values.")
    return values


def _colors(values: np.ndarray) -> dict[str, Any]:
    """Colour map and its norm: from zero to the largest value, or on both sides of zero."""
    largest = float(np.abs(values).max()) or 1.0  # an empty map is all of the lowest colour
    signed = bool(values.min() < 0)
    norm = Normalize(-largest if signed else 0, largest)
    return {"cmap": SIGNED_COLORS if signed else POSITIVE_COLORS, "norm": norm}
