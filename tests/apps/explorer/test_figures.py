from __future__ import annotations

import matplotlib as mpl
import pytest
from matplotlib.colors import to_hex

from captum_groupcam.apps.explorer._figures import group_figures, legend, picture, title_of
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._questions import (
    Explanation,
    explain,
    groups_of,
)
from captum_groupcam.visualization import POSITIVE_COLORS, SIGNED_COLORS


@pytest.fixture(scope="module")
def answers(models: Models, ask) -> tuple[Explanation, ...]:
    group_cam = {"n_groups": 3, "denoise_percentile": None, "denoise_at": "input"}
    return tuple(
        explain(models, ask(method, layer="_blocks.10._bn2", **options))
        for method, options in {"group_cam": group_cam, "grad_cam": {}}.items()
    )


def test_titles_say_what_is_not_at_its_default(ask) -> None:
    assert title_of(ask("grad_cam")) == "grad_cam"
    assert title_of(ask("group_cam", n_groups=3)) == "group_cam\nn_groups=3"


def test_a_picture_has_the_image_and_each_map(answers: tuple[Explanation, ...]) -> None:
    *titles, _colors = (axes.get_title() for axes in picture(answers).axes)
    assert titles == ["tabby", *(title_of(answer.question) for answer in answers)]


def test_figures_of_the_groups(models: Models, answers: tuple[Explanation, ...]) -> None:
    groups = groups_of(models, answers[0])
    panels, how_sure = group_figures(answers[0], groups)
    best = int(groups.scores.argmax())
    assert panels.axes[0].get_title() == f"group {best}: {float(groups.scores[best]):+.3f}"
    assert how_sure.axes[2].get_title() == (
        f"standard error, up to {float(groups.standard_error.max()):.3g}"
    )


def test_the_legend_has_the_colours_of_the_maps():
    text = legend()
    for name in (POSITIVE_COLORS, SIGNED_COLORS):
        ends = [to_hex(mpl.colormaps[name](end)) for end in (0.0, 0.5, 1.0)]
        assert all(color in text for color in ends)
        assert text.index(ends[0]) < text.index(ends[2])
    assert "speaks against it" in text
