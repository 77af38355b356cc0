"""Maps over their images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from captum_groupcam.visualization._figures import INCH, POSITIVE_COLORS, SIGNED_COLORS

__all__ = [
    "draw_overlay",
    "group_panels",
    "method_grid",
    "method_sheet",
    "overlay",
    "overlay_pixels",
]


#: Height of the explanation of the colours, and size of one scale of colours in it, in inches.
_LEGEND = 0.75
_SCALE = (1.6, 0.15)
#: Of a line of a title, and between a title and what is above it.
_LINE, _ABOVE = 0.2, 0.15


def draw_overlay(
    axes: Axes,
    image: Tensor,
    attribution: Tensor,
    *,
    title: str | None = None,
    alpha: float = 0.5,
    cmap: str | None = None,
) -> None:
    """Draws a map over an image, in axes of a figure.

    The map is scaled to its largest value by Captum, which cuts off the top 2 % of its sum; without
    negative values, it begins at its smallest. A map without any contrast says nothing: the image
    is drawn bare, with the words "empty map".

    Args:
        axes (matplotlib.axes.Axes): Where to draw.
        image (Tensor): 3 x H x W (or 1 x H x W), values in [0, 1].
        attribution (Tensor): 1 x H x W or H x W. Shown as signed if it has negative values.
        title (str, optional): Stands above. Default: None.
        alpha (float, optional): Opacity of the map, 0 to 1. Default: 0.5.
        cmap (str, optional): A colour map of matplotlib. Default: None, :data:`POSITIVE_COLORS` or
            :data:`SIGNED_COLORS`.

    Raises:
        ValueError: If shapes do not fit or the map is not finite.

    Examples::

        >>> import torch
        >>> axes = Figure().subplots()
        >>> draw_overlay(axes, torch.rand(3, 8, 8), torch.rand(1, 8, 8), title="cat")
        >>> axes.get_title()
        'cat'
    """
    pixels = _pixels(image)
    values = attribution.detach().cpu().double().numpy()
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.shape != pixels.shape[:2]:
        raise ValueError(
            f"Expected a map of shape 1 x {pixels.shape[0]} x {pixels.shape[1]}, like the image, "
            f"got {tuple(attribution.shape)}."
        )
    if not np.isfinite(values).all():
        raise ValueError("The map contains NaN or infinite values.")
    axes.set_axis_off()
    if values.min() == values.max():
        axes.imshow(pixels.mean(2), cmap="gray", vmin=0, vmax=1)
        axes.text(
            0.5,
            0.5,
            "empty map",
            transform=axes.transAxes,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "alpha": 0.8},
        )
        axes.set_title(title or "")
        return
    from captum.attr import visualization as captum_visualization  # takes seconds to import

    signed = _is_signed(attribution)
    if not signed:
        values = values - values.min()  # RISE's maps have a floor far above zero
    captum_visualization.visualize_image_attr(
        # Captum takes maps with small values for empty ones.
        (values / np.abs(values).max())[..., np.newaxis],
        pixels,
        method="blended_heat_map",
        sign="all" if signed else "positive",
        plt_fig_axis=(axes.figure, axes),
        cmap=cmap or (SIGNED_COLORS if signed else POSITIVE_COLORS),
        alpha_overlay=alpha,
        title=title,
        use_pyplot=False,
    )


def overlay(
    image: Tensor,
    attribution: Tensor,
    *,
    title: str | None = None,
    alpha: float = 0.5,
    cmap: str | None = None,
) -> Figure:
    """Makes a figure of a map over its image; see :func:`draw_overlay` for the arguments.

    Examples::

        >>> import torch
        >>> figure = overlay(torch.rand(3, 8, 8), torch.rand(1, 8, 8), title="cat")
        >>> figure.axes[0].get_title()
        'cat'
    """
    height, width = image.shape[-2:]
    figure = Figure(figsize=(5, 5 * height / width + 0.4), layout="constrained")
    draw_overlay(figure.subplots(), image, attribution, title=title, alpha=alpha, cmap=cmap)
    return figure


def overlay_pixels(
    image: Tensor,
    attribution: Tensor,
    *,
    alpha: float = 0.5,
    cmap: str | None = None,
    scale: int = 1,
) -> np.ndarray:
    """Draws a map over its image without anything around it; see :func:`draw_overlay`.

    Args:
        image (Tensor): 3 x H x W (or 1 x H x W), values in [0, 1].
        attribution (Tensor): 1 x H x W or H x W.
        alpha (float, optional): Opacity of the map, 0 to 1. Default: 0.5.
        cmap (str, optional): A colour map of matplotlib. Default: None.
        scale (int, optional): Pixels along each side for each of the image. Default: 1.

    Returns:
        numpy.ndarray: (scale * H) x (scale * W) x 3, uint8.

    Examples::

        >>> import torch
        >>> overlay_pixels(torch.rand(3, 8, 9), torch.rand(1, 8, 9)).shape
        (8, 9, 3)
    """
    height, width = image.shape[-2:]
    dpi = 64  # a power of two, so that inches times it are whole pixels again
    figure = Figure(figsize=(width / dpi, height / dpi))
    draw_overlay(figure.add_axes((0, 0, 1, 1)), image, attribution, alpha=alpha, cmap=cmap)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=scale * dpi)
    pixels = np.frombuffer(buffer.getvalue(), np.uint8)
    return pixels.reshape(scale * height, scale * width, 4)[..., :3]


def method_grid(
    images: Tensor | Sequence[Tensor],
    maps: Mapping[str, Tensor | Sequence[Tensor]],
    *,
    row_titles: Sequence[str] | None = None,
    images_per_row: int = 1,
    alpha: float = 0.5,
) -> Figure:
    """Makes a figure of images, each followed by the map of each method.

    Args:
        images (Tensor or sequence of Tensor): N images of 3 x H x W, values in [0, 1].
        maps (mapping of str to Tensor or sequence of Tensor): Title of a column to N maps of
            1 x H x W.
        row_titles (sequence of str, optional): What stands above each image. Default: None.
        images_per_row (int, optional): Images, with their maps, side by side. Default: 1.
        alpha (float, optional): Opacity of the maps, 0 to 1. Default: 0.5.

    Returns:
        matplotlib.figure.Figure: The figure.

    Raises:
        ValueError: If there is no image, or not one map or title for each.

    Examples::

        >>> import torch
        >>> images = torch.rand(2, 3, 8, 8)
        >>> figure = method_grid(images, {"Group-CAM": torch.rand(2, 1, 8, 8)})
        >>> len(figure.axes)
        4
    """
    if len(images) == 0:
        raise ValueError("Expected at least one image.")
    for what, values in {**maps, "row_titles": row_titles}.items():
        if values is not None and len(values) != len(images):
            raise ValueError(f"Expected {len(images)} entries of {what!r}, got {len(values)}.")
    width = 1 + len(maps)
    columns, rows = width * images_per_row, -(-len(images) // images_per_row)
    height = INCH * max(image.shape[-2] / image.shape[-1] for image in images) + 0.3
    figure = Figure(figsize=(INCH * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for index, image in enumerate(images):
        row, block = divmod(index, images_per_row)
        places = grid[row, block * width :]
        _draw_image(places[0], image, row_titles[index] if row_titles is not None else "")
        for place, (method, attributions) in zip(places[1:], maps.items(), strict=False):
            title = method if row == 0 else None
            draw_overlay(place, image, attributions[index], title=title, alpha=alpha)
    for place in grid[-1, (len(images) - (rows - 1) * images_per_row) * width :]:
        place.remove()
    return figure


def method_sheet(
    image: Tensor,
    maps: Mapping[str, Tensor],
    *,
    title: str = "",
    columns: int = 6,
    alpha: float = 0.5,
    legend: bool = True,
) -> Figure:
    """Makes a figure of one image and its maps by many methods, in rows of a few.

    Below them stands what the colours mean, of maps with and without negative values.

    Args:
        image (Tensor): 3 x H x W, values in [0, 1].
        maps (mapping of str to Tensor): Name of a method to its map, 1 x H x W.
        title (str, optional): Stands above the image. Default: "".
        columns (int, optional): Pictures in a row. Default: 6.
        alpha (float, optional): Opacity of the maps, 0 to 1. Default: 0.5.
        legend (bool, optional): Whether the colours are explained. Default: True.

    Returns:
        matplotlib.figure.Figure: The figure.

    Examples::

        >>> import torch
        >>> figure = method_sheet(torch.rand(3, 8, 8), {"Group-CAM": torch.rand(1, 8, 8)})
        >>> [axes.get_title() or axes.get_xlabel() for axes in figure.axes]
        ['', 'Group-CAM', 'maps without negative values']
    """
    columns = min(columns, 1 + len(maps))
    rows = -(-(1 + len(maps)) // columns)
    kinds = {_is_signed(one) for one in maps.values() if one.min() < one.max()} if legend else set()
    below = _LEGEND if kinds else 0.0
    lines = [text.count("\n") + 1 for text in (title, *maps)]
    lines_of_rows = sum(max(lines[row * columns :][:columns]) for row in range(rows))
    pictures = rows * INCH * image.shape[-2] / image.shape[-1]
    height = pictures + rows * _ABOVE + lines_of_rows * _LINE + below
    figure = Figure(figsize=(INCH * columns, height))
    figure.set_layout_engine("constrained", rect=(0, below / height, 1, 1 - below / height))
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    _draw_image(places[0], image, title)
    for place, (method, attribution) in zip(places[1:], maps.items(), strict=False):
        draw_overlay(place, image, attribution, title=method, alpha=alpha)
    for place in places[1 + len(maps) :]:
        place.remove()
    for place in places[: 1 + len(maps)]:
        place.set_anchor("S")  # what a picture leaves of its place is for its title
    for number, signed in enumerate(sorted(kinds)):
        _draw_scale(figure, (number + 0.5) / len(kinds), signed)
    return figure


def group_panels(
    image: Tensor,
    masks: Tensor,
    scores: Tensor,
    *,
    n_groups: int = 8,
    columns: int = 4,
    title: str = "",
) -> Figure:
    """Makes a figure of the groups that speak most for a class: what each shows of the image.

    What a group's mask hides is black. Above each stand the group's index and its score; groups
    without a score (flat masks, that were not queried) are left out.

    Args:
        image (Tensor): 3 x H x W, values in [0, 1].
        masks (Tensor): G x H x W, the masks that the network saw, in [0, 1].
        scores (Tensor): G, what each adds to the class's score.
        n_groups (int, optional): Groups shown, those of the largest scores. Default: 8.
        columns (int, optional): Pictures in a row. Default: 4.
        title (str, optional): Stands above all. Default: "".

    Returns:
        matplotlib.figure.Figure: The figure.

    Raises:
        ValueError: If there is not one score for each mask, or no group with a score.

    Examples::

        >>> import torch
        >>> masks, scores = torch.rand(3, 8, 8), torch.tensor([0.1, 0.5, -0.2])
        >>> figure = group_panels(torch.rand(3, 8, 8), masks, scores, n_groups=2)
        >>> [axes.get_title() for axes in figure.axes]
        ['group 1: +0.500', 'group 0: +0.100']
    """
    if scores.shape != masks.shape[:1]:
        raise ValueError(
            f"Expected a score for each of {masks.shape[0]} masks, got {tuple(scores.shape)}."
        )
    ranked = scores.argsort(descending=True).tolist()
    shown = [group for group in ranked if scores[group] != 0][:n_groups]
    if not shown:
        raise ValueError("No group has a score: every mask is flat.")
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    height = INCH * image.shape[-2] / image.shape[-1] + 0.3
    figure = Figure(figsize=(INCH * columns, height * rows + 0.4), layout="constrained")
    figure.suptitle(title)
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    for place, group in zip(places, shown, strict=False):
        seen = image.detach().cpu() * masks[group].detach().cpu()
        _draw_image(place, seen, f"group {group}: {float(scores[group]):+.3f}")
    for place in places[len(shown) :]:
        place.remove()
    return figure


def _is_signed(attribution: Tensor) -> bool:
    return bool(attribution.min() < 0)


def _draw_scale(figure: Figure, centre: float, signed: bool) -> None:
    """Draws the colours of one kind of maps below all else, around a share of the width."""
    width, height = _SCALE[0] / figure.get_figwidth(), figure.get_figheight()
    place = figure.add_axes(
        (centre - width / 2, (_LEGEND - 0.1 - _SCALE[1]) / height, width, _SCALE[1] / height)
    )
    ticks = {-1: "against", 0: "0", 1: "for the class"} if signed else {0: "lowest", 1: "highest"}
    colors = ScalarMappable(Normalize(min(ticks), 1), SIGNED_COLORS if signed else POSITIVE_COLORS)
    scale = figure.colorbar(colors, place, orientation="horizontal", ticks=list(ticks))
    place.set_xticklabels(list(ticks.values()))
    scale.set_label("signed maps" if signed else "maps without negative values")


def _draw_image(axes: Axes, image: Tensor, title: str) -> None:
    axes.imshow(_pixels(image))
    axes.set_axis_off()
    axes.set_title(title)


def _pixels(image: Tensor) -> np.ndarray:
    """An image as H x W x 3."""
    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"Expected an image of shape 3 x H x W, got {tuple(image.shape)}.")
    pixels = image.detach().cpu().float().clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0)
    return np.asarray(pixels.numpy())
