"""Figures of a report, each a small SVG: side by side, or below each other on a phone."""

from __future__ import annotations

import base64
import inspect
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import ArrayLike

from captum_groupcam.visualization import LINE_COLORS, draw_curve

from .labels import place_labels
from .measured import Score
from .merged import MergedRows
from .tables import Table

__all__ = [
    "Figure",
    "cost_figures",
    "curve_figures",
    "sanity_figures",
    "study_figures",
    "varied",
]

_BLUE, _RED, _GREEN = LINE_COLORS[:3]
_GREY = "#8a8a8a"
_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,  # a label may hold a dollar sign
}
_SIZE = (3.3, 2.5)
_WIDE = (4.6, 3.6)
#: What a map costs; other units of time would be the same picture again.
_PRICES = ("queries", "seconds")


@dataclass(frozen=True)
class Figure:
    """A picture of the page.

    Args:
        source (str): A data URI.
        text (str): What it shows, for those who cannot see it.
        name (str, optional): That of its file beside the page. Default: "", none.
    """

    source: str
    text: str
    name: str = ""

    @property
    def content(self) -> bytes:
        """What its file holds."""
        return base64.b64decode(self.source.partition(",")[2])


def curve_figures(
    rows: MergedRows, measure: str, methods: Sequence[str], reference: str
) -> list[Figure]:
    """Deletion and insertion curves: a panel for each method, the reference's in grey behind.

    Args:
        rows (MergedRows): The rows of a section.
        measure (str): A measure with the curves ``deletion_curve`` and ``insertion_curve``.
        methods (sequence of str): The methods.
        reference (str): The method to compare with; its curves are means over the same samples.
    """
    colors = {"deletion_curve": _RED, "insertion_curve": _BLUE}
    behind = rows.curves(measure, reference, [*colors])
    figures = []
    for method in methods:
        own = behind if method == reference else rows.curves(measure, method, [*colors])
        n = len(own.places)
        if not n:
            continue
        shared = np.isin(behind.places, own.places)
        with _canvas(_SIZE) as (canvas, axes):
            fractions: ArrayLike = [] if own.axis is None else own.axis
            for key, color in colors.items():
                name = key.removesuffix("_curve")
                if method != reference and shared.any():
                    draw_curve(
                        axes,
                        fractions,
                        behind.by_name[key][shared],
                        color=_GREY,
                        label="_",  # none in the legend
                        linestyle="--" if name == "deletion" else "-",
                        confidence=None,
                    )
                draw_curve(axes, fractions, own.by_name[key], color=color, label=name)
            axes.set(title=f"{_wrapped(method)}\nn = {n}", xlim=(0, 1), ylim=(0, 1))
            axes.set(xlabel="share of the pixels", ylabel="p(class)")
            _legend_below(canvas)
        grey = f", in grey those of {reference} on the {shared.sum()} samples that both have"
        text = (
            f"Deletion and insertion curves of {method} ({measure}): means of {n} samples "
            "with 95 % bands" + (grey if method != reference and shared.any() else "")
        )
        figures.append(Figure(_uri(canvas), text, f"{measure} of {method}"))
    return figures


def sanity_figures(
    rows: MergedRows, measure: str, methods: Sequence[str], layers: Sequence[str]
) -> list[Figure]:
    """Similarity to the map of the trained network, layer by layer: a panel for each method.

    Args:
        rows (MergedRows): The rows of a section.
        measure (str): A measure with the curves ``ssim`` and ``spearman``.
        methods (sequence of str): The methods.
        layers (sequence of str): Names of the layers, in the order of the curves.
    """
    colors = {"ssim": _BLUE, "spearman": _RED}
    figures = []
    for method in methods:
        own = rows.curves(measure, method, [*colors])
        n = len(own.places)
        if not n:
            continue
        with _canvas((_SIZE[0], _SIZE[1] + 0.6)) as (canvas, axes):
            for name, color in colors.items():
                stacked = own.by_name[name]
                n_points = stacked.shape[1]
                draw_curve(axes, range(n_points), stacked, color=color, label=name, marker=".")
            names = list(layers) if len(layers) == n_points else [*map(str, range(1, n_points + 1))]
            axes.set_xticks(range(n_points), names, rotation=60, ha="right", fontsize=6)
            axes.axhline(0, color=_GREY, linewidth=0.5)
            axes.set(title=f"{_wrapped(method)}\nn = {n}", ylim=(-0.5, 1.05))
            axes.set(ylabel="similarity")
            _legend_below(canvas)
        text = (
            f"Similarity of the maps of {method} to those of the trained network, by randomised "
            f"layer ({measure}): means of {n} samples with 95 % bands"
        )
        figures.append(Figure(_uri(canvas), text, f"{measure} of {method}"))
    return figures


def cost_figures(accuracy: Table, cost: Table) -> list[Figure]:
    """Scores against queries and seconds, a figure for each pair.

    Args:
        accuracy (Table): Scores; those called ``over_all`` and the first of a pointing game are
            drawn.
        cost (Table): ``queries`` and ``seconds``.
    """
    drawn = [score for score in accuracy.scores if score.source.endswith("over_all")]
    drawn += [score for score in accuracy.scores if "PointingGame" in score.measure][:1]
    drawn = [score for score in drawn if len(accuracy.having(score)) > 1]
    prices = [score for score in cost.scores if score.name in _PRICES]
    return [_cost_figure(accuracy, score, cost, price) for score in drawn for price in prices]


def study_figures(table: Table, methods: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """Scores of a study's variants: a line over a varied number, else dots; a panel for each score.

    Args:
        table (Table): The study's table; its reference is marked.
        methods (mapping): The configuration's methods: name and options of each.
    """
    name, values = varied(table.methods, methods)
    figures = []
    for score in (s for s in table.scores if s.category != "cost" and not s.per_class):
        labels = table.having(score)
        intervals = [table.cells[label, score.name].interval for label in labels]
        means = np.array([i.mean for i in intervals])
        ends = np.array([[i.low for i in intervals], [i.high for i in intervals]])
        numbers = [values[label] for label in labels]
        with _canvas(_SIZE) as (canvas, axes):
            if all(_is_number(number) for number in numbers):
                x = np.array(numbers, dtype=np.float64)
                order = np.argsort(x)
                axes.fill_between(x[order], *ends[:, order], color=_BLUE, alpha=0.2, linewidth=0)
                axes.plot(x[order], means[order], ".-", color=_BLUE)
                if x.min() > 0 and x.max() / x.min() > 20:
                    axes.set_xscale("log", base=2)
                    axes.set_xticks(x, [f"{value:g}" for value in x], minor=False)
                    axes.set_xticks([], minor=True)
            else:
                x = np.arange(len(labels), dtype=np.float64)
                axes.errorbar(
                    x, means, np.abs(ends - means), fmt="o", color=_BLUE, capsize=3, markersize=4
                )
                axes.set_xticks(x, [_wrapped(str(n), 14) for n in numbers], fontsize=7)
                axes.set_xlim(-0.5, len(labels) - 0.5)
            for place, label in enumerate(labels):
                if label == table.reference:
                    axes.plot(x[place], means[place], "D", color=_RED, label="reference")
                    _legend_below(canvas)
            n = table.n(score)
            axes.set(title=f"{score.name} ({_direction(score)}), n = {n}", xlabel=name)
        text = f"{score.name} against {name}: means of {n} samples with 95 % intervals"
        figures.append(Figure(_uri(canvas), text, f"{table.subset} {score.name}"))
    return figures


def varied(
    labels: Sequence[str], methods: Mapping[str, Mapping[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """What differs between variants of a method.

    Args:
        labels (sequence of str): The variants.
        methods (mapping): The configuration's methods: name, options and layer of each.

    Returns:
        tuple of str and dict: The option's name, and its value for each variant, which for
        GroupCAM is the default where none is given. Without one such option: ``variant``, and the
        labels.
    """
    options = {label: dict(methods[label]["options"]) for label in labels}
    for label in labels:
        options[label]["layer"] = methods[label].get("layer")
    keys = sorted({key for its in options.values() for key in its})
    one_method = {methods[label]["name"] for label in labels} == {"group_cam"}
    defaults = _defaults() if one_method else {}
    for its in options.values():
        for key in keys:
            if key in defaults:
                its.setdefault(key, defaults[key])
    differing = [key for key in keys if len({repr(its.get(key)) for its in options.values()}) > 1]
    if not one_method or len(differing) != 1:
        return "variant", {label: label for label in labels}
    (key,) = differing
    return key, {label: its.get(key, "default") for label, its in options.items()}


def _defaults() -> dict[str, Any]:
    """Of the options of GroupCAM."""
    from captum_groupcam.attr.group_cam import GroupCAM  # takes seconds, for studies alone

    parameters = inspect.signature(GroupCAM.attribute).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def _cost_figure(accuracy: Table, score: Score, cost: Table, price: Score) -> Figure:
    labels = [method for method in accuracy.having(score) if (method, price.name) in cost.cells]
    intervals = [accuracy.cells[label, score.name].interval for label in labels]
    y = np.array([interval.mean for interval in intervals])
    errors = np.array([[i.mean - i.low for i in intervals], [i.high - i.mean for i in intervals]])
    x = np.array([cost.cells[label, price.name].interval.mean for label in labels])
    free = x <= 0
    floor = min(1.0, x[~free].min(initial=1.0)) / 2
    with _canvas(_WIDE) as (canvas, axes):
        axes.set_xscale("log")
        axes.errorbar(
            np.where(free, floor, x), y, np.nan_to_num(errors), fmt="o", color=_BLUE,
            ecolor="#b5cfe3", markersize=4, elinewidth=1,
        )  # fmt: skip
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlim(floor / 1.5, max(x.max(initial=1.0), 1.0) * 3)
        if free.any():
            axes.axvline(floor, color=_GREY, linewidth=0.5, linestyle=":")
            axes.annotate(
                "none", (floor, 0), xycoords=("data", "axes fraction"), xytext=(2, 3),
                textcoords="offset points", color=_GREY,
            )  # fmt: skip
        axes.margins(y=0.15)
        axes.grid(alpha=0.25)
        axes.set(xlabel=f"{price.name} for one map", ylabel=f"{score.name} ({_direction(score)})")
        place_labels(axes, np.where(free, floor, x), y, [_wrapped(label) for label in labels])
    text = f"{score.name} against {price.name}: " + "; ".join(
        f"{label} {v:.3f} at {c:.3g}" for label, v, c in zip(labels, y, x, strict=True)
    )
    return Figure(_uri(canvas), text, f"{score.name} against {price.name}")


@contextmanager
def _canvas(size: tuple[float, float]) -> Iterator[tuple[Canvas, Axes]]:
    with mpl.rc_context(_SETTINGS):
        canvas = Canvas(figsize=size, layout="constrained")
        yield canvas, canvas.subplots()


def _legend_below(canvas: Canvas) -> None:
    """A legend where it covers no curve."""
    canvas.legend(frameon=False, loc="outside lower center", ncols=2)


def _uri(canvas: Canvas) -> str:
    buffer = io.BytesIO()
    with mpl.rc_context(_SETTINGS):
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _direction(score: Score) -> str:
    return "higher is better" if score.higher_is_better else "lower is better"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrapped(label: str, width: int = 34) -> str:
    """A label in lines of limited width, broken behind its separators."""
    lines = [""]
    for part in label.replace(",", ",\0").replace(":", ":\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
