"""The commands of ``python -m benchmarks``, run for real on a small data set."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.measures.randomisation import N_LAYERS
from benchmarks.run.folder import RunFolder
from benchmarks.run.rows import COST
from tests.benchmarks.report.report_runs import rows_beside

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two pictures with boxes, and a network without weights."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for index in range(2):
        pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{index}.png")
    (root / "boxes.csv").write_text(
        "file,label,x0,y0,x1,y1\n0.png,0,5,5,20,30\n1.png,1,10,10,30,30\n"
    )
    return [
        "--dataset=folder",
        f"--root={root}",
        "--model=squeezenet1_1",
        "--weights=random",
        "--accelerator=cpu",
        "--n-shown=1",
    ]


def output(*arguments: str, exit_code: int = 0) -> str:
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == exit_code, result.output
    return " ".join(result.output.split())


def test_compare_ends_with_the_page(options: list[str], tmp_path: Path) -> None:
    printed = output(
        "compare",
        *options,
        f"--out={tmp_path}",
        "--methods=centre random:seed=1",
        "--methods=grad_cam",
        "--measures=PointingGame AverageDrop",
        "--samples-per-batch=2",
    )
    page = Path(printed.split()[-1])
    assert page.is_file()
    assert "random:seed=1" in page.read_text()
    rows = RunFolder(tmp_path).rows()
    assert {row.method for row in rows} == {"centre", "random:seed=1", "grad_cam"}
    assert {row.measure for row in rows} == {COST, "PointingGame", "AverageDrop"}
    assert RunFolder(tmp_path).configuration["environment"]["samples_per_batch"] == 2


def test_an_idea_on_some_samples(options: list[str], tmp_path: Path) -> None:
    output(
        "compare",
        *options,
        f"--out={tmp_path}",
        "--methods=research.chosen:n_groups=2",
        "--measures=PointingGame",
        "--samples=1::2",
    )
    assert {(row.sample, row.error) for row in RunFolder(tmp_path).rows()} == {("1.png:1", None)}


def test_ablate_names_its_studies(options: list[str], tmp_path: Path) -> None:
    output(
        "ablate",
        *options,
        f"--out={tmp_path}",
        "--studies=denoise_at weights",
        "--layers=features.10",
        "--measures=AverageDrop",
        "--limit=1",
    )
    configuration = RunFolder(tmp_path).configuration
    assert configuration["studies"] == {
        "denoise_at": ["group_cam", "group_cam:denoise_at=input"],
        "weights": ["group_cam", "group_cam_gradient_free"],
        "layer": ["group_cam", "group_cam:layer=features.10"],
    }
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert "how sure group_cam denoise_at=input is of 00000.png" in pictures
    # What several studies share is done once.
    assert len(RunFolder(tmp_path).rows()) == 4 * 2


def test_sanity_draws_both_orders(options: list[str], tmp_path: Path) -> None:
    output("sanity", *options, f"--out={tmp_path}", "--methods=grad_cam edges", "--limit=1")
    folder = RunFolder(tmp_path)
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "cascading randomisation.png",
        "independent randomisation.png",
    ]
    rows = {(row.method, row.measure): row for row in folder.rows()}
    edges = rows["edges", "ParameterRandomisation.cascading"]
    assert edges.scores == pytest.approx({"cascading.ssim": 1.0, "cascading.spearman": 1.0})
    assert len(edges.curves["ssim"]) == len(folder.configuration["randomised_layers"])
    assert len(edges.curves["ssim"]) == N_LAYERS
    grad_cam = rows["grad_cam", "ParameterRandomisation.cascading"]
    assert grad_cam.scores["cascading.spearman"] < 0.99


def test_speed_counts_and_times(options: list[str], tmp_path: Path) -> None:
    output(
        "speed",
        "methods",
        *options,
        f"--out={tmp_path}",
        "--methods=group_cam centre",
        "--limit=1",
    )
    rows = {row.method: row for row in RunFolder(tmp_path).rows()}
    assert {row.measure for row in rows.values()} == {COST}
    assert rows["centre"].scores["queries"] == 0
    assert 1 < rows["group_cam"].scores["queries"] <= 34
    scores = rows["group_cam"].scores
    assert scores["forward_passes"] > 0


def test_report_merges_runs(options: list[str], tmp_path: Path) -> None:
    methods = ("centre", "grad_cam")
    for method in methods:
        output(
            "compare",
            *options,
            f"--out={tmp_path / method}",
            f"--methods={method}",
            "--measures=PointingGame",
            "--limit=1",
        )
    folders = [str(tmp_path / method) for method in methods]
    printed = output("report", *folders, f"--out={tmp_path / 'all'}")
    assert Path(printed.split()[-1]).is_file()
    rows = rows_beside(tmp_path / "all")
    assert {(row["section"], row["method"]) for row in rows} == {
        (rows[0]["section"], method) for method in methods
    }
    with (tmp_path / "all" / "table.csv").open(newline="") as file:
        table = {(line["method"], line["score"]): line for line in csv.DictReader(file)}
    for row in rows:
        for score, value in row["scores"].items():
            assert float(table[row["method"], score]["mean"]) == pytest.approx(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--methods=gradcam"], "Unknown method 'gradcam'"),
        (["compare", "--measures=Insertion"], "Unknown measure 'Insertion'"),
        (["compare", "--dataset=folder"], "root"),
        (["compare", "--target=best"], "The target is label or predicted"),
        (["ablate", "--studies=thetas"], "Unknown study 'thetas'"),
        (["speed", "everything"], "Unknown: everything"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], message: str, tmp_path: Path) -> None:
    if arguments[0] != "report":
        arguments = [*arguments, f"--out={tmp_path}"]
    printed = output(*arguments, exit_code=2)
    assert message in printed
    assert "Traceback" not in printed
