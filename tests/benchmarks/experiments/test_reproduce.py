"""The paper, measured again: what is run, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.experiments.reproduce import measuring
from benchmarks.experiments.reproduce.measuring import AGREES, DISAGREES, OPEN, Plan
from benchmarks.experiments.reproduce.paper import EXHIBITS
from benchmarks.report.page import chapter
from benchmarks.run.rows import Row
from tests.benchmarks.report.report_runs import section

MODEL = """
from torch import nn


def build(num_classes=2):
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, num_classes))
"""


def found(values: dict[str, list[float]], score: str, category: str, higher: bool = True):
    rows = [
        Row(f"{index:03}", method, "M", scores={score: value})
        for method, column in values.items()
        for index, value in enumerate(column)
    ]
    configuration = {
        "methods": {method: {"name": method, "options": {}, "layer": None} for method in values},
        "measures": {"M": {"scores": {score: higher}, "category": category}},
        "studies": {},
    }
    return chapter(section(rows, configuration))


def about(mean: float, seed: int) -> list[float]:
    return list(mean + 0.1 * np.random.default_rng(seed).normal(size=40))


@pytest.mark.parametrize(
    ("ours", "others", "verdict"),
    [(0.8, (0.5, 0.4), AGREES), (0.5, (0.8, 0.4), DISAGREES), (0.8, (0.8, 0.4), OPEN)],
)
def test_the_highest_of_all_methods(ours, others, verdict):
    grad_cam, rise = others
    values = {"group_cam": about(ours, 0), "grad_cam": about(grad_cam, 1), "rise": about(rise, 2)}
    seen = measuring._highest(found(values, "over_all", "faithfulness"))
    assert (seen.verdict, seen.n) == (verdict, 40)
    assert "| rise |" in seen.table


@pytest.mark.parametrize(("best", "verdict"), [(70, AGREES), (60, AGREES), (10, DISAGREES)])
def test_the_optimum_of_theta(best, verdict):
    values = {
        "group_cam" if theta == 70 else f"group_cam:denoise_percentile={theta}": about(
            0.8 if theta == best else 0.5, theta
        )
        for theta in (0, 10, 60, 70, 90)
    }
    seen = measuring._optimum(found(values, "over_all", "faithfulness"))
    assert seen.verdict == verdict
    assert f"theta = {best};" in seen.text


def test_an_optimum_by_chance_decides_nothing():
    values = {
        "group_cam" if theta == 70 else f"group_cam:denoise_percentile={theta}": about(
            0.505 if theta == 70 else 0.5, theta
        )
        for theta in (0, 60, 70, 90)
    }
    seen = measuring._optimum(found(values, "over_all", "faithfulness"))
    assert seen.verdict == OPEN


def test_small_objects_are_no_substitute_for_all_images():
    rows = [
        Row(f"{i:03}", method, "M", scores={"pointing_game": float(i < hits)}, cover=cover)
        for i, cover in enumerate([0.1] * 8 + [0.9] * 12)
        for method, hits in (("group_cam", 20), ("grad_cam", 10))
    ]
    configuration = {
        "methods": {
            m: {"name": m, "options": {}, "layer": None} for m in ("group_cam", "grad_cam")
        },
        "measures": {"M": {"scores": {"pointing_game": True}, "category": "localisation"}},
        "studies": {},
    }
    table, _ = measuring._table(chapter(section(rows, configuration)), "pointing_game")
    assert table.n(table.scores[0]) == 20


@pytest.mark.parametrize(("one", "verdict"), [(0.5, AGREES), (0.9, DISAGREES), (0.7, OPEN)])
def test_a_gain_has_its_sign_and_interval(one, verdict):
    values = {"group_cam": about(0.7, 0), "group_cam:n_groups=1": about(one, 1)}
    seen = measuring._gain(found(values, "over_all", "faithfulness"))
    assert seen.verdict == verdict
    mean = np.mean(np.subtract(values["group_cam"], values["group_cam:n_groups=1"]))
    assert f"{mean:+.3f}".replace("-", "\N{MINUS SIGN}") in seen.text


def test_each_exhibit_names_its_data_and_its_share():
    plan = Plan(Path("out"), {}, scale=0.01)
    assert plan.count(EXHIBITS["table1"]) == 100
    assert plan.count(EXHIBITS["figure6"]) == 6  # fewer decide nothing
    assert Plan(Path("out"), {}).count(EXHIBITS["figure6"]) == 10
    assert plan.network(EXHIBITS["table1"]) == "vgg19"
    assert {exhibit.data for exhibit in EXHIBITS.values()} == {"imagenet", "coco", "train"}


def test_what_cannot_be_measured_is_said_in_a_line(tmp_path):
    for arguments, words in (
        (["--only", "table9"], "Unknown: table9; known are table1, figure5"),
        (["--only", "pointing"], "pointing needs --coco DIR; leave it out with --only"),
    ):
        done = CliRunner().invoke(app, ["reproduce", *arguments, "--out", str(tmp_path / "out")])
        assert done.exit_code == 2
        assert words in " ".join(done.output.split())


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """Pictures of two classes, as data of ImageNet and as data to train on."""
    colours = {"red": "n01", "blue": "n02"}
    for half in ("train", "val"):
        for colour, wnid in colours.items():
            folder = tmp_path / "train" / half / wnid
            folder.mkdir(parents=True)
            for place in range(2):
                image = Image.new("RGB", (40, 40), colour)
                image.paste("white", (place, 10, place + 20, 30))
                image.save(folder / f"{place}.png")
    images = tmp_path / "imagenet" / "images"
    images.mkdir(parents=True)
    lines = ["file,label,wnid,x0,y0,x1,y1,union_cover"]
    for index, colour in enumerate(colours):
        Image.new("RGB", (40, 40), colour).save(images / f"{colour}.JPEG")
        lines.append(f"{colour}.JPEG,{index},n0{index + 1},5,5,20,20,0.1")
    (tmp_path / "imagenet" / "boxes.csv").write_text("\n".join(lines) + "\n")
    return {"imagenet": tmp_path / "imagenet", "train": tmp_path / "train"}


def test_a_page_from_end_to_end_and_again_from_its_rows(tmp_path, pictures, monkeypatch):
    (tmp_path / "mine.py").write_text(MODEL)
    arguments = ["reproduce", "--only", "table2 speed", "--scale", "0", "--accelerator", "cpu"]
    arguments += ["--imagenet", str(pictures["imagenet"]), "--out", str(tmp_path / "out")]
    arguments += ["--model", f"{tmp_path / 'mine.py'}:build", "--preprocess", "imagenet"]
    arguments += ["--image-size", "32"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out" / "reproduction.md").read_text()
    assert "in place of resnet50" in page
    assert "| group_cam:n_groups=1 |" in page
    assert "On 0 % of the paper's images" in page
    for name in ("(table2)=", "(speed)="):
        assert name in page
    (figure, *_) = (tmp_path / "out" / "figures").glob("table2-*.svg")
    assert f"(figures/{figure.name})" in page
    again = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "0 results to do" in again.output
    assert (tmp_path / "out" / "reproduction.md").read_text() == page


def test_a_share_of_the_pictures_is_enough_to_fine_tune(tmp_path, pictures):
    """Those of ImageNet fill batches of 256."""
    (tmp_path / "mine.py").write_text(MODEL)
    (tmp_path / "names.txt").write_text("n01\nn02\n")
    arguments = ["reproduce", "--only", "finetune", "--scale", "0", "--accelerator", "cpu"]
    arguments += ["--train", str(pictures["train"]), "--out", str(tmp_path / "out")]
    arguments += ["--model", f"{tmp_path / 'mine.py'}:build", "--preprocess", "imagenet"]
    arguments += ["--image-size", "32", "--class-names", str(tmp_path / "names.txt")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out" / "reproduction.md").read_text()
    assert "after 2 epochs with 2 pictures of each class. **Not decided.**" in page
    assert "| group_cam |" in page
