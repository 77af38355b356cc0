from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captum_groupcam.apps.explorer._figures import group_figures, picture, script, title_of
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._questions import (
    Explanation,
    Photo,
    Question,
    explain,
    groups_of,
    look,
)
from captum_groupcam.visualization import save_figure
from tests.apps.explorer.conftest import LITE0, RANDOM


@pytest.fixture(scope="module")
def answers(models: Models, ask) -> tuple[Explanation, ...]:
    group_cam = {"n_groups": 3, "denoise_percentile": None, "denoise_at": "input"}
    return tuple(
        explain(models, ask(method, layer="_blocks.10._bn2", **options))
        for method, options in {"group_cam": group_cam, "grad_cam": {}}.items()
    )


def test_the_script_makes_the_same_maps_and_picture(
    models: Models, answers: tuple[Explanation, ...], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made.py").write_text(script(answers, models, alpha=0.3), encoding="utf-8")
    made = runpy.run_path("made.py")
    for answer, attribution in zip(answers, made["maps"].values(), strict=True):
        torch.testing.assert_close(attribution, answer.attribution, rtol=0, atol=0)
    save_figure(picture(answers, alpha=0.3), "expected.png")
    with Image.open("cat_explained.png") as one, Image.open("expected.png") as other:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_the_script_of_an_upload_takes_it_from_its_folder(
    models: Models, cat: Photo, tmp_path: Path, monkeypatch
) -> None:
    name = 'it\'s "a" {cat}\n.png'
    cat.open().save(tmp_path / name)
    view = look(models, Photo(name, tmp_path / name), LITE0)
    answer = explain(models, Question(view, "", 281, "grad_cam"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made.py").write_text(script([answer], models), encoding="utf-8")
    (attribution,) = runpy.run_path("made.py")["maps"].values()
    torch.testing.assert_close(attribution, answer.attribution, rtol=0, atol=0)
    assert len(list(tmp_path.glob("*_explained.png"))) == 1


def test_the_script_names_weights_and_device(models: Models, ask) -> None:
    code = script([explain(models, ask("grad_cam", model=RANDOM))], Models([RANDOM], "cuda:1"))
    compile(code, "made.py", "exec")
    assert "load_model('squeezenet1_1', weights='random', device='cuda:1')" in code


def test_titles_say_what_is_not_at_its_default(ask) -> None:
    assert title_of(ask("grad_cam")) == "grad_cam"
    assert title_of(ask("group_cam", n_groups=3)) == "group_cam\nn_groups=3"


def test_a_picture_has_the_image_and_each_map(answers: tuple[Explanation, ...]) -> None:
    titles = [axes.get_title() for axes in picture(answers).axes]
    assert titles == ["tabby", *(title_of(answer.question) for answer in answers)]


def test_figures_of_the_groups(models: Models, answers: tuple[Explanation, ...]) -> None:
    groups = groups_of(models, answers[0])
    panels, how_sure = group_figures(answers[0], groups)
    best = int(groups.scores.argmax())
    assert panels.axes[0].get_title() == f"group {best}: {float(groups.scores[best]):+.3f}"
    assert how_sure.axes[2].get_title() == (
        f"standard error, up to {float(groups.standard_error.max()):.3g}"
    )
