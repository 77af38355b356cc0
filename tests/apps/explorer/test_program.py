from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captum_groupcam.apps.explorer._figures import picture
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._program import picture_name, program
from captum_groupcam.apps.explorer._questions import Explanation, Photo, Question, explain, look
from captum_groupcam.methods import METHODS, load_method
from captum_groupcam.models import ImageClassifier, Preprocessing, load_model
from captum_groupcam.visualization import save_figure
from tests.apps.explorer.conftest import LITE0, RANDOM

NETWORK = """
import torch
from torch import nn
from captum_groupcam.models import ImageClassifier, Preprocessing

def bare(num_classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, num_classes),
    )

def build(num_classes: int = 4) -> ImageClassifier:
    return ImageClassifier(bare(num_classes), Preprocessing(48, (0.5,) * 3, (0.5,) * 3))
"""
DESCRIPTION = """
network = "mynetwork.model:bare"
weights = "weights.pth"
class_names = "names.txt"

[preprocess]
image_size = 48
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with networks of one's own, which is the current one."""
    folder = tmp_path / "project"
    (folder / "mynetwork").mkdir(parents=True)
    (folder / "nets").mkdir()
    (folder / "mynetwork" / "model.py").write_text(NETWORK)
    (folder / "nets" / "cnn.py").write_text(NETWORK)
    (folder / "names.txt").write_text("ant\nbee\ncat\n")
    (folder / "model.toml").write_text(DESCRIPTION)
    network = runpy.run_path(str(folder / "nets" / "cnn.py"))["bare"](3)
    torch.save(network.state_dict(), folder / "weights.pth")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path[:])
    return folder


def run(code: str, folder: Path, **given: Any) -> dict[str, Any]:
    """Runs a program, and gives what it has made."""
    folder.mkdir(exist_ok=True)
    (folder / "made.py").write_text(code, encoding="utf-8")
    return runpy.run_path(str(folder / "made.py"), given)


def same(made: dict[str, Any], answers: list[Explanation]) -> None:
    """Equal to rounding: the explorer may accelerate the network, the program does not."""
    for answer, attribution in zip(answers, made["maps"].values(), strict=True):
        torch.testing.assert_close(attribution, answer.attribution, rtol=1e-4, atol=1e-5)
        assert attribution.any()


def test_it_makes_the_same_maps_and_picture(
    models: Models, ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"n_groups": 3, "denoise_percentile": None, "denoise_at": "input"}
    answers = [
        explain(models, ask("group_cam", layer="_blocks.10._bn2", **options)),
        explain(models, ask("grad_cam", layer="_blocks.10._bn2")),
    ]
    same(run(program(answers, models, alpha=0.3), tmp_path), answers)
    save_figure(picture(answers, alpha=0.3), "expected.png")
    with Image.open("cat_explained.png") as one, Image.open("expected.png") as other:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_an_upload_is_taken_from_the_folder(
    models: Models, cat: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = 'it\'s "a" {cat}\n.png'
    cat.open().save(tmp_path / name)
    view = look(models, Photo(name, tmp_path / name), LITE0)
    answer = explain(models, Question(view, "", 281, "grad_cam"))
    monkeypatch.chdir(tmp_path)
    same(run(program([answer], models), tmp_path), [answer])
    assert len(list(tmp_path.glob("*_explained.png"))) == 1


@pytest.mark.parametrize(
    ("name", "n_classes"),
    [
        ("mynetwork.model:build", 4),
        ("nets/cnn.py:build", 4),
        ("nets/cnn.py:build=weights.pth", 3),
        ("model.toml", 3),
    ],
)
def test_a_network_of_ones_own_is_found_from_anywhere(
    name: str, n_classes: int, project: Path, cat: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Models([name])
    view = look(models, cat, name)
    assert len(view.classes) == n_classes
    answers = [explain(models, Question(view, "0", 2, "group_cam", {"n_groups": 4}))]
    code = program(answers, models)
    for module in [one for one in sys.modules if one.startswith("mynetwork")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(project)])
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    same(run(code, elsewhere), answers)


@pytest.mark.parametrize("reference", ["mynetwork.maps:mean", "nets/maps.py:mean"])
def test_a_method_of_ones_own_is_loaded(
    reference: str, project: Path, ask, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("mynetwork", "nets"):
        (project / folder / "maps.py").write_text(
            "def mean(model, inputs, target):\n    return inputs.mean(1, keepdim=True)\n"
        )
    known = dict(METHODS)
    monkeypatch.setattr("captum_groupcam.methods._registry.METHODS", known)
    name = load_method(reference).name
    answers = [explain(models, ask(name)), explain(models, ask("grad_cam"))]
    code = program(answers, models, references={name: reference, "other": "x:y"})
    del known[name]
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(project)])
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    same(run(code, elsewhere), answers)


def test_a_network_without_a_name_is_given_to_it(
    cat: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    own = ImageClassifier(network, Preprocessing(32, (0.5,) * 3, (0.5,) * 3), list("abcd"))
    models = Models([own])
    answers = [explain(models, Question(look(models, cat, "Sequential"), "0", 1, "grad_cam"))]
    code = program(answers, models)
    same(run(code, tmp_path, model=own), answers)
    with pytest.raises(SystemExit) as end:
        run(code, tmp_path)
    assert end.value.code == (
        "The explorer was given its network, Sequential, as an object.\n"
        "Where it is called model, run this program by\n"
        "    import runpy\n"
        "    runpy.run_path('cat_explained.py', {'model': model})"
    )


def test_weights_and_device_are_named(ask, models: Models) -> None:
    code = program([explain(models, ask("grad_cam", model=RANDOM))], models)
    assert "model = load_model('squeezenet1_1', weights='random')\n" in code
    elsewhere = load_model("squeezenet1_1", "random", "meta")
    answer = explain(models, ask("grad_cam", model=RANDOM))
    there = Models([RANDOM])
    there._loaded[RANDOM] = elsewhere
    code = program([answer], there)
    assert "load_model('squeezenet1_1', weights='random', device='meta')" in code
    compile(code, "made.py", "exec")


def test_the_picture_has_a_name_that_any_system_takes(models: Models, ask) -> None:
    answer = explain(models, ask("grad_cam"))
    for name, expected in {
        "a/b\\c:d?.png": "b_c_d__explained.png",
        "\N{SNOWMAN}" * 300 + ".png": "_" * 50 + "_explained.png",
        "..": ".._explained.png",
    }.items():
        view = answer.question.view
        other = type(view)(Photo(name), *[getattr(view, key) for key in list(vars(view))[1:]])
        question = Question(other, "", 281, "grad_cam")
        assert picture_name([type(answer)(question, "", 0, answer.attribution, 0, ())]) == expected
