"""Lines over the share of an input that is replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from captum_groupcam.metrics.bootstrap import bootstrap_curve

if TYPE_CHECKING:
    from captum_groupcam.metrics.functional import DeletionInsertionResult

__all__ = ["LINE_COLORS", "curves", "draw_curve"]

#: Colours of lines that colour-blind people can distinguish (Okabe and Ito 2008).
LINE_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")


def draw_curve(
    axes: Axes,
    x: ArrayLike,
    curves: ArrayLike,
    *,
    color: str,
    label: str,
    linestyle: str = "-",
    marker: str = "",
    confidence: float | None = 0.95,
) -> None:
    """Draws the mean of some samples' curves, and how sure it is, in axes of a figure.

    Args:
        axes (matplotlib.axes.Axes): Where to draw.
        x (array-like): K positions.
        curves (array-like): N x K, one a sample.
        color (str): Colour of line and band.
        label (str): Name in a legend.
        linestyle (str, optional): As of matplotlib. Default: "-".
        marker (str, optional): As of matplotlib. Default: "", none.
        confidence (float, optional): Level of the band, which is of percentile bootstrap intervals
            of the mean, at each point separately; a single sample has none. Default: 0.95; None
            draws no band.

    Raises:
        ValueError: If the confidence is not between 0 and 1.

    Examples::

        >>> import numpy as np
        >>> axes = Figure().subplots()
        >>> draw_curve(axes, [0, 1], np.array([[1, 0], [3, 1]]), color="black", label="mean of two")
        >>> axes.lines[0].get_ydata().tolist()
        [2.0, 0.5]
    """
    values = np.asarray(curves, dtype=np.float64)
    axes.plot(x, values.mean(0), linestyle, color=color, label=label, marker=marker)
    if confidence is not None and len(values) > 1:
        low, high = bootstrap_curve(values, confidence)
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def curves(
    results: Mapping[str, DeletionInsertionResult],
    *,
    confidence: float | None = 0.95,
    title: str = "",
) -> Figure:
    """Makes a figure of deletion and insertion curves, their areas in the legends.

    Each line is the mean over a method's samples.

    Args:
        results (mapping of str to DeletionInsertionResult): Name of a method to what
            :func:`~captum_groupcam.metrics.functional.deletion_insertion` gave.
        confidence (float, optional): Level of the bands, see :func:`draw_curve`. Default: 0.95;
            None draws none.
        title (str, optional): Stands above all. Default: "".

    Returns:
        matplotlib.figure.Figure: The figure.

    Raises:
        ValueError: If there are no results, or the confidence is out of range.

    Examples::

        >>> import torch
        >>> from captum_groupcam.metrics.functional import deletion_insertion
        >>> result = deletion_insertion(
        ...     lambda x: x.mean((1, 2, 3)), torch.rand(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
        ... )
        >>> [axes.get_title() for axes in curves({"Group-CAM": result}).axes]
        ['Deletion (lower is better)', 'Insertion (higher is better)']
    """
    if not results:
        raise ValueError("Expected at least one result.")
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, sharey=True)
    for index, (name, result) in enumerate(results.items()):
        # Names repeat their colours only where the dashes differ.
        color = LINE_COLORS[index % len(LINE_COLORS)]
        linestyle = ("-", "--", ":", "-.")[index % 4]
        shares = result.fractions.cpu()
        for axes, areas, scores in (
            (left, result.deletion, result.deletion_curve.cpu()),
            (right, result.insertion, result.insertion_curve.cpu()),
        ):
            draw_curve(
                axes,
                shares,
                scores,
                color=color,
                label=f"{name}: {float(areas.mean()):.3f}",
                linestyle=linestyle,
                confidence=confidence,
            )
    for axes, name in (
        (left, "Deletion (lower is better)"),
        (right, "Insertion (higher is better)"),
    ):
        axes.set(title=name, xlabel="share of the pixels replaced", xlim=(0, 1))
        axes.grid(alpha=0.3)
        axes.legend(title="area under the curve")
    return figure
