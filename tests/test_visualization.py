from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from captum_groupcam.metrics.functional import DeletionInsertionResult
from captum_groupcam.visualization import (
    LINE_COLORS,
    POSITIVE_COLORS,
    SIGNED_COLORS,
    curves,
    draw_curve,
    group_panels,
    method_grid,
    method_sheet,
    overlay,
    overlay_pixels,
    save_figure,
    signal_plot,
    volume_slices,
)


def image(height: int = 20, width: int = 30) -> torch.Tensor:
    return torch.rand(3, height, width)


def blob(height: int = 20, width: int = 30) -> torch.Tensor:
    values = torch.zeros(1, height, width)
    values[0, 2:6, -10:-5] = 3.0
    return values


@pytest.fixture(autouse=True)
def no_global_figures():
    yield
    assert plt.get_fignums() == []


def test_an_overlay_is_the_image_in_grey_under_the_scaled_map() -> None:
    picture = image()
    figure = overlay(picture, blob(), title="tabby", alpha=0.25)
    (axes,) = figure.axes
    assert axes.get_title() == "tabby"
    below, above = axes.images
    grey = (picture * 255).int().float().mean(0)
    np.testing.assert_allclose(below.get_array(), grey, atol=1e-3)
    np.testing.assert_allclose(above.get_array(), blob()[0] / 3, atol=1e-6)
    assert above.get_alpha() == 0.25
    assert above.get_cmap().name == POSITIVE_COLORS
    assert above.get_clim() == (0, 1)


def test_the_drawn_picture_is_bright_where_the_map_is_high() -> None:
    figure = overlay(torch.full((3, 20, 30), 0.5), blob())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(float).mean(2)
    axes = figure.axes[0]

    def brightness(x: float, y: float) -> float:
        column, from_bottom = axes.transData.transform((x, y))
        return float(pixels[int(pixels.shape[0] - from_bottom), int(column)])

    assert brightness(22, 4) > brightness(22, 12) + 50
    assert brightness(22, 4) > brightness(4, 4) + 50


def test_signed_maps_get_signed_colors_and_keep_their_sign() -> None:
    values = blob()
    values[0, 10:14, 2:7] = -1.5
    above = overlay(image(), values).axes[0].images[1]
    assert above.get_cmap().name == SIGNED_COLORS
    assert above.get_clim() == (-1, 1)
    np.testing.assert_allclose(above.get_array(), values[0] / 3, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0, 1e-30])
def test_maps_without_contrast_are_marked_as_empty(value: float) -> None:
    (axes,) = overlay(image(), torch.full((1, 20, 30), value), title="none").axes
    assert [text.get_text() for text in axes.texts] == ["empty map"]
    assert len(axes.images) == 1
    assert axes.get_title() == "none"


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e30])
def test_the_scale_of_a_map_does_not_matter(scale: float) -> None:
    (axes,) = overlay(image(), blob() * scale).axes
    assert not axes.texts
    np.testing.assert_allclose(axes.images[1].get_array(), blob()[0] / 3, atol=1e-5)


def test_kinds_of_tensors() -> None:
    grey = torch.rand(1, 20, 30, dtype=torch.float64, requires_grad=True)
    figure = overlay(grey, blob()[0].to(torch.bfloat16))
    np.testing.assert_allclose(figure.axes[0].images[1].get_array(), blob()[0] / 3, atol=1e-2)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected a map of shape 1 x 20 x 30.*\(1, 7, 7\)"):
        overlay(image(), torch.rand(1, 7, 7))
    with pytest.raises(ValueError, match=r"Expected an image of shape 3 x H x W, got \(1, 3, "):
        overlay(image()[None], blob())
    with pytest.raises(ValueError, match="NaN or infinite"):
        overlay(image(), blob() / 0)


def test_a_grid_has_a_row_for_each_image_and_a_column_for_each_method() -> None:
    images = torch.rand(3, 3, 20, 30)
    maps = {"Group-CAM": blob().expand(3, 1, 20, 30), "Empty": torch.zeros(3, 1, 20, 30)}
    figure = method_grid(images, maps, row_titles=["a", "b", "c"])
    grid = np.array(figure.axes).reshape(3, 3)
    assert [axes.get_title() for axes in grid[0]] == ["a", "Group-CAM", "Empty"]
    assert [axes.get_title() for axes in grid[2]] == ["c", "", ""]
    for row in range(3):
        np.testing.assert_allclose(
            grid[row, 0].images[0].get_array(), images[row].permute(1, 2, 0), atol=1e-6
        )
        assert len(grid[row, 1].images) == 2
        assert len(grid[row, 2].texts) == 1


def test_a_grid_takes_images_of_several_sizes() -> None:
    sizes = [(20, 30), (30, 20)]
    figure = method_grid([image(*s) for s in sizes], {"m": [blob(*s) for s in sizes]})
    assert len(figure.axes) == 4


def test_titles_do_not_overlap() -> None:
    names = ["football helmet, 16%", "black-and-tan coonhound, 99%"]
    figure = method_grid(
        torch.rand(2, 3, 20, 20), {"Group-CAM": torch.rand(2, 1, 20, 20)}, row_titles=names
    )
    FigureCanvasAgg(figure).draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_images_side_by_side() -> None:
    images = torch.rand(3, 3, 20, 30)
    figure = method_grid(
        images, {"m": blob().expand(3, 1, 20, 30)}, row_titles=["a", "b", "c"], images_per_row=2
    )
    assert [axes.get_title() for axes in figure.axes] == ["a", "m", "b", "m", "c", ""]
    np.testing.assert_allclose(
        figure.axes[4].images[0].get_array(), images[2].permute(1, 2, 0), atol=1e-6
    )


def test_a_sheet_wraps_the_methods_of_one_image() -> None:
    image = torch.rand(3, 20, 30)
    figure = method_sheet(image, dict.fromkeys("vwxyz", blob()), title="cat", columns=4)
    assert [axes.get_title() for axes in figure.axes] == ["cat", "v", "w", "x", "y", "z", ""]
    first, last = figure.axes[0].get_subplotspec(), figure.axes[5].get_subplotspec()
    assert first.get_geometry()[:2] == (2, 4)
    assert (last.rowspan.start, last.colspan.start) == (1, 1)


def test_a_sheet_says_what_its_colors_mean() -> None:
    signed = blob()
    signed[0, 10:14, 2:7] = -1.5
    every = {"positive": blob(), "signed": signed, "empty": torch.zeros(1, 20, 30)}
    labels = {"positive": "maps without negative values", "signed": "signed maps"}
    for names in (["positive"], ["signed", "empty"], ["positive", "signed"], ["empty"]):
        figure = method_sheet(torch.rand(3, 20, 30), {name: every[name] for name in names})
        scales = figure.axes[1 + len(names) :]
        assert [scale.get_xlabel() for scale in scales] == [
            label for name, label in labels.items() if name in names
        ]
        FigureCanvasAgg(figure).draw()
        shown = [axes.get_tightbbox() for axes in figure.axes]
        assert not any(a.overlaps(b) for i, a in enumerate(shown) for b in shown[:i])
    assert len(method_sheet(torch.rand(3, 20, 30), every, legend=False).axes) == 4


def test_what_a_grid_refuses() -> None:
    images = torch.rand(2, 3, 20, 30)
    with pytest.raises(ValueError, match="at least one image"):
        method_grid(images[:0], {})
    with pytest.raises(ValueError, match="Expected 2 entries of 'm', got 1"):
        method_grid(images, {"m": blob()[None]})
    with pytest.raises(ValueError, match="Expected 2 entries of 'row_titles', got 1"):
        method_grid(images, {}, row_titles=["a"])


def test_saving_makes_the_folder(tmp_path: Path) -> None:
    path = save_figure(overlay(image(), blob()), tmp_path / "new" / "a.png", dpi=50)
    assert path == tmp_path / "new" / "a.png"
    with Image.open(path) as saved:
        assert saved.format == "PNG"
        assert saved.width == 250


def test_the_colors_rise_in_lightness() -> None:
    colors = matplotlib.colormaps[POSITIVE_COLORS](np.linspace(0, 1, 256))[:, :3]
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()


def test_a_floor_under_a_map_is_not_drawn() -> None:
    image = torch.rand(3, 20, 30)
    drawn = [
        overlay(image, attribution).axes[0].images[1].get_array()
        for attribution in (blob(), blob() + 5)
    ]
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-4)


@pytest.mark.parametrize("scale", [1, 3])
def test_pixels_of_an_overlay_are_those_of_the_image(scale: int) -> None:
    picture = image(57, 113)  # sizes whose inches are not exact
    pixels = overlay_pixels(picture, blob(57, 113), alpha=0.0, scale=scale)
    assert pixels.shape == (57 * scale, 113 * scale, 3)
    assert pixels.dtype == np.uint8
    grey = (picture * 255).int().float().mean(0)
    stretched = 255 * (grey - grey.min()) / (grey.max() - grey.min())  # by Captum
    middles = pixels[scale // 2 :: scale, scale // 2 :: scale]
    np.testing.assert_allclose(middles.mean(2), stretched, atol=2.5)
    bright = overlay_pixels(picture, blob(57, 113), alpha=1.0)
    hit = bright[2:6, -10:-5].mean()
    assert hit > bright[30:, :50].mean() + 100


def result(*areas: float) -> DeletionInsertionResult:
    """Straight curves whose deletion areas are given; insertion runs one higher."""
    fractions = torch.tensor([0.0, 0.5, 1.0])
    deletion = torch.tensor(areas)
    flat = deletion[:, None].expand(-1, 3)
    return DeletionInsertionResult(
        deletion, deletion + 1, torch.ones_like(deletion), fractions, flat, flat + 1
    )


def test_curves_are_means_with_their_areas_in_the_legend() -> None:
    figure = curves({"a": result(0.1, 0.3), "b": result(0.4)}, title="cat")
    left, right = figure.axes
    assert figure.get_suptitle() == "cat"
    assert [line.get_label() for line in left.lines] == ["a: 0.200", "b: 0.400"]
    assert [line.get_label() for line in right.lines] == ["a: 1.200", "b: 1.400"]
    np.testing.assert_allclose(left.lines[0].get_xdata(), [0, 0.5, 1])
    np.testing.assert_allclose(left.lines[0].get_ydata(), [0.2, 0.2, 0.2])
    looks = {(line.get_color(), line.get_linestyle()) for line in left.lines}
    assert len(looks) == 2
    (band,) = left.collections  # a single sample has none
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(0.1)
    assert heights.max() == pytest.approx(0.3)
    assert not curves({"a": result(0.1, 0.3)}, confidence=None).axes[0].collections


def test_bands_are_bootstrap_intervals_at_each_point() -> None:
    samples = np.random.default_rng(0).normal(size=(30, 4)) * np.array([1, 2, 3, 0])
    axes = Figure().subplots()
    draw_curve(axes, range(4), samples, color="black", label="", confidence=0.9)
    heights = axes.collections[0].get_paths()[0].vertices
    for x in range(4):
        ends = heights[heights[:, 0] == x, 1]
        expected = scipy.stats.bootstrap(
            (samples[:, x],), np.mean, confidence_level=0.9, method="percentile", rng=0
        ).confidence_interval
        width = expected.high - expected.low
        assert ends.min() == pytest.approx(expected.low, abs=width / 15 + 1e-12)
        assert ends.max() == pytest.approx(expected.high, abs=width / 15 + 1e-12)


def test_many_curves_differ_in_colour_or_dashes() -> None:
    (left, _) = curves({str(n): result(0.1 * n) for n in range(28)}).axes
    assert len({(line.get_color(), line.get_linestyle()) for line in left.lines}) == 28


def test_what_curves_refuse() -> None:
    with pytest.raises(ValueError, match="at least one result"):
        curves({})
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1.5"):
        curves({"a": result(0.1, 0.2)}, confidence=1.5)


def test_panels_show_the_groups_of_the_largest_scores() -> None:
    picture = image()
    masks = torch.zeros(4, 20, 30)
    masks[2, :, :15] = 1
    masks[3] = 0.5
    scores = torch.tensor([-0.1, 0.0, 0.3, 0.7])
    figure = group_panels(picture, masks, scores, columns=2, title="tabby")
    titles = ["group 3: +0.700", "group 2: +0.300", "group 0: -0.100"]
    assert [axes.get_title() for axes in figure.axes] == titles
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    whole = picture.permute(1, 2, 0).numpy()
    np.testing.assert_allclose(shown[0], whole * 0.5, atol=1e-6)
    np.testing.assert_allclose(shown[1][:, :15], whole[:, :15], atol=1e-6)
    assert not shown[1][:, 15:].any()
    few = group_panels(picture, masks, scores, n_groups=1)
    assert [axes.get_title() for axes in few.axes] == titles[:1]


def test_what_panels_refuse() -> None:
    with pytest.raises(ValueError, match=r"a score for each of 2 masks, got \(3,\)"):
        group_panels(image(), torch.rand(2, 20, 30), torch.rand(3))
    with pytest.raises(ValueError, match="every mask is flat"):
        group_panels(image(), torch.rand(2, 20, 30), torch.zeros(2))


def test_line_colors_are_told_apart_without_red_and_green() -> None:
    """Simulated for deuteranopia (Viénot et al. 1999), colours keep their distance."""
    rgb = np.array([matplotlib.colors.to_rgb(color) for color in LINE_COLORS]) ** 2.2
    to_lms = np.array([[17.88, 43.52, 4.12], [3.46, 27.16, 3.87], [0.03, 0.18, 1.47]])
    lms = rgb @ to_lms.T
    lms[:, 1] = 0.494207 * lms[:, 0] + 1.24827 * lms[:, 2]
    seen = np.clip(lms @ np.linalg.inv(to_lms).T, 0, 1) ** (1 / 2.2)
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > 0.15


def test_a_signal_is_drawn_whole_and_coloured_by_its_map() -> None:
    signal, values = torch.randn(2, 30), torch.rand(1, 30)
    figure = signal_plot(signal, values, title="ECG")
    for axes, channel in zip(figure.axes[:2], signal, strict=True):
        (line,) = axes.collections
        pieces = np.stack(line.get_segments())
        np.testing.assert_allclose(pieces[:, 1, 1], channel, atol=1e-6)
        np.testing.assert_allclose(pieces[:, 1, 0], np.arange(30))
        np.testing.assert_allclose(pieces[:-1, 2], pieces[1:, 0])  # no gap
        np.testing.assert_allclose(line.get_array(), values[0], atol=1e-6)
        assert line.get_cmap().name == POSITIVE_COLORS
        assert line.get_clim() == (0, pytest.approx(float(values.max())))
        low, high = axes.get_ylim()
        assert low <= channel.min() < channel.max() <= high
    assert figure.get_suptitle() == "ECG"


def test_slices_of_a_volume_share_their_colors() -> None:
    volume, values = torch.randn(1, 9, 5, 6), torch.randn(1, 9, 5, 6)
    figure = volume_slices(volume, values, n_slices=3)
    shown = figure.axes[:3], figure.axes[3:6]
    for above, below, depth in zip(*shown, (1, 4, 7), strict=True):
        assert above.get_title() == f"slice {depth}"
        np.testing.assert_allclose(above.images[0].get_array(), volume[0, depth], atol=1e-6)
        np.testing.assert_allclose(below.images[1].get_array(), values[0, depth], atol=1e-6)
        largest = pytest.approx(float(values.abs().max()))
        assert below.images[1].get_clim() == (-largest.expected, largest)
        assert below.images[1].get_cmap().name == SIGNED_COLORS
    assert len(volume_slices(volume, values, n_slices=50).axes) == 2 * 9 + 1


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: signal_plot(torch.rand(8), torch.rand(8)), "C x L"),
        (lambda: signal_plot(torch.rand(1, 8), torch.rand(1, 9)), r"shape \(1, 8\)"),
        (lambda: signal_plot(torch.rand(1, 8), torch.rand(8) / 0), "infinite"),
        (lambda: volume_slices(torch.rand(2, 3, 4, 4), torch.rand(3, 4, 4)), "1 x D x H x W"),
        (lambda: volume_slices(torch.rand(3, 4, 4), torch.rand(3, 4, 5)), r"\(1, 3, 4, 4\)"),
        (lambda: volume_slices(torch.rand(3, 4, 4), torch.rand(3, 4, 4), n_slices=0), "at least 1"),
    ],
)
def test_what_signals_and_volumes_refuse(draw, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()


@pytest.mark.parametrize("n_maps", [2, 9])
@pytest.mark.parametrize("title", ["cat", "Egyptian cat\npoints at it: 100%", "a\nb\nc\nd"])
def test_titles_of_a_sheet_are_neither_cut_off_nor_on_other_pictures(title, n_maps):
    maps = {f"map {number}\nseed={number}": torch.rand(1, 224, 224) for number in range(n_maps)}
    figure = method_sheet(torch.rand(3, 224, 224), maps, title=title)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    places = figure.axes[: 1 + n_maps]
    titles = [place.title.get_window_extent(canvas.get_renderer()) for place in places]
    assert max(one.y1 for one in titles) <= figure.bbox.height + 0.5
    above = [place.get_window_extent() for place in places[:6]]
    for below in titles[6:]:
        assert below.y1 <= min(picture.y0 for picture in above) + 0.5
