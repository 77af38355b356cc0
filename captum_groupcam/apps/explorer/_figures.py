"""Figures of the explorer."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from captum_groupcam.apps.explorer._questions import Explanation, Groups, Question
from captum_groupcam.visualization import (
    POSITIVE_COLORS,
    SIGNED_COLORS,
    group_panels,
    method_sheet,
)

__all__ = ["group_figures", "legend", "picture", "title_of"]

#: Colours that a legend passes through.
_N_COLORS = 9


def legend() -> str:
    """What the colours of maps mean, as HTML: of positive maps, and of those with two signs."""
    return (
        '<div class="legend">'
        + "".join(
            f"<div><span>{low}</span>"
            f'<i style="background: linear-gradient(to right, {_colors(name)})"></i>'
            f"<span>{high}</span></div>"
            for low, name, high in (
                ("nothing", POSITIVE_COLORS, "speaks for the class"),
                ("speaks against it", SIGNED_COLORS, "speaks for it, in maps with both signs"),
            )
        )
        + "</div>"
    )


def _colors(name: str) -> str:
    colors = mpl.colormaps[name]
    return ", ".join(to_hex(colors(place / (_N_COLORS - 1))) for place in range(_N_COLORS))


def title_of(question: Question) -> str:
    """A method, and its options that are not at their defaults."""
    options = (f"{name}={value}" for name, value in question.options.items())
    return "\n".join([question.method, *options])


def picture(explanations: Sequence[Explanation], alpha: float = 0.5) -> Figure:
    """Makes the figure of a photo and the maps that explain the same decision.

    Args:
        explanations (sequence of Explanation): Answers about one photo, model, layer and class.
        alpha (float, optional): Opacity of the maps. Default: 0.5.
    """
    first = explanations[0]
    maps = {title_of(e.question): e.attribution for e in explanations}
    return method_sheet(first.shown, maps, title=first.class_name, alpha=alpha)


def group_figures(explanation: Explanation, groups: Groups) -> list[Figure]:
    """Makes two figures of the groups behind a map: what they show, and how sure it is."""
    title = f"{title_of(explanation.question)}, {len(groups.scores)} groups"
    attribution, error = explanation.attribution, groups.standard_error
    maps = {
        f"map, up to {float(attribution.max()):.3g}": attribution,
        f"standard error, up to {float(error.max()):.3g}": error,
    }
    return [
        group_panels(explanation.shown, groups.masks, groups.scores, title=title),
        method_sheet(explanation.shown, maps, title=explanation.class_name),
    ]
