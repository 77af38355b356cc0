"""Mosaics: of images that the network is sure of, with the truth in the right cell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.data import DATASETS, grid, open_dataset, to_inputs
from benchmarks.report import write_report
from benchmarks.run.loop import RunSettings, run
from captum_groupcam.methods import MethodSpec
from captum_groupcam.models import MODELS, ImageClassifier, Preprocessing

#: Colours by class: the network is sure of a picture that shows one of them everywhere.
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
SIDE = 8


class Colours(nn.Module):
    """Says how much of each colour there is; takes any size, or one."""

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.features = nn.Conv2d(3, len(COLOURS), 1)
        colours = 2 * torch.tensor(COLOURS).float()[:, :, None, None] / 255 - 1
        with torch.no_grad():
            self.features.weight.copy_(5 * colours)
            self.features.bias.copy_(-5 * colours.square().sum((1, 2, 3)) / 2)

    def forward(self, inputs: Tensor) -> Tensor:
        assert self.size in (None, inputs.shape[-1])
        return self.features(inputs).mean((2, 3))


def classifier(size: int | None = None) -> ImageClassifier:
    network = Colours(size).eval()
    preprocess = Preprocessing(SIDE, mean=(0.5,) * 3, std=(0.5,) * 3)
    names = ["red", "green", "blue", "yellow", "cyan"]
    return ImageClassifier(network, preprocess, names, network.features)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures of each colour; one more is mislabelled, one grey, one damaged."""
    (tmp_path / "images").mkdir()
    rows = ["file,label"]
    for label, colour in enumerate(COLOURS):
        for index in range(3):
            Image.new("RGB", (20, 10), colour).save(tmp_path / "images" / f"{label}{index}.png")
            rows.append(f"{label}{index}.png,{label}")
    Image.new("RGB", (8, 8), COLOURS[0]).save(tmp_path / "images" / "wrong.png")
    Image.new("RGB", (8, 8), (140, 110, 110)).save(tmp_path / "images" / "grey.png")
    (tmp_path / "images" / "damaged.png").write_bytes(b"no picture")
    rows += ["wrong.png,1", "grey.png,0", "damaged.png,2"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def test_images_that_do_not_qualify_are_counted(root: Path) -> None:
    data = grid(root, classifier().class_names, model=classifier(), n_mosaics=3)
    assert dict(data.left_out) == {
        "the network predicts another class": 1,
        "the network is less sure of its class": 1,
        "the image cannot be loaded": 1,
    }
    assert "15 of 18 are predicted" in data.about["images"]


@pytest.mark.parametrize("n", [2, 3])
def test_cells_show_different_classes_and_the_asked_one_is_in_its_box(root: Path, n: int) -> None:
    if n == 3:
        with pytest.raises(ValueError, match=r"15 are predicted .* of 5 classes: too few"):
            grid(root, classifier().class_names, model=classifier(), n=n)
        return
    data = grid(root, classifier().class_names, model=classifier(), n=n, ask="each", n_mosaics=5)
    assert len(data) == 5 * n * n
    for sample in data:
        assert sample.image.size == (n * SIDE, n * SIDE)
        pixels = np.asarray(sample.image)
        shown = {tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()}
        assert len(shown) == n * n
        (x0, y0, x1, y1), cell = sample.boxes[0].int().tolist(), int(sample.id[-1])
        assert (x0, y0) == (SIDE * (cell % n), SIDE * (cell // n))
        assert (pixels[y0:y1, x0:x1] == COLOURS[sample.targets[0]]).all()
        assert to_inputs([sample], classifier()).shape == (1, 3, n * SIDE, n * SIDE)


def test_one_cell_is_asked_in_turn_and_no_image_is_twice_in_a_pass(root: Path) -> None:
    data = grid(root, classifier().class_names, model=classifier(), n_mosaics=8)
    assert list(data.loaders) == [f"{index:04}:{index % 4}" for index in range(8)]
    members = [{one.name for one in loader.args[2]} for loader in list(data.loaders.values())[:3]]
    assert not members[0] & members[1]
    assert not members[1] & members[2]
    again = grid(root, classifier().class_names, model=classifier(), n_mosaics=8)
    for one, other in zip(data, again, strict=True):
        assert one.image.tobytes() == other.image.tobytes()
    other = grid(root, classifier().class_names, model=classifier(), n_mosaics=8, seed=1)
    assert [s.targets for s in other] != [s.targets for s in data]


def test_cells_are_resized_for_networks_of_one_size(root: Path) -> None:
    fixed = classifier(SIDE)
    data = grid(root, fixed.class_names, model=fixed, n_mosaics=1)
    (sample,) = data
    assert sample.image.size == (SIDE, SIDE)
    assert "resized, since the network takes inputs of one size only" in data.about["cells"]
    assert fixed.network(to_inputs([sample], fixed)).shape == (1, 5)


@pytest.fixture
def registered() -> Iterator[None]:
    MODELS["colours"] = lambda *_: classifier()
    yield
    del MODELS["colours"]


@pytest.mark.usefixtures("registered")
def test_a_run_over_mosaics_says_how_they_were_made(root: Path, tmp_path: Path) -> None:
    settings = RunSettings(
        tmp_path / "out",
        [MethodSpec("group_cam", {"n_groups": 5}), MethodSpec("grad_cam"), MethodSpec("random")],
        measures=["GridPointingGame"],
        dataset="grid:n_mosaics=4",
        root=root,
        model="colours",
        accelerator="cpu",
    )
    folder = run(settings)
    rows = [row for row in folder.rows() if row.measure == "GridPointingGame"]
    assert len(rows) == 12
    assert not any(row.error for row in rows)
    for row in rows:
        assert row.cover == 0.25
        if row.method == "grad_cam":  # the asked colour alone is positive
            assert row.scores["grid.hit"] == 1
            assert row.scores["grid.roc_auc"] > 0.9
    page = write_report([folder.path], tmp_path / "report").read_text()
    assert "15 of 18 are predicted as their label says" in page
    assert "which takes the larger mosaics" in page
    assert run(settings).rows() == folder.rows()  # goes on, with nothing to do


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grids", "Unknown dataset 'grids'"),
        ("grid:cells=3", "has no option 'cells'"),
        ("grid:n=two", "n must be int"),
        ("grid:n", "name:option=value"),
        ("grid:n=1", "at least 2 cells a side"),
        ("grid:of=grid", "of another data set"),
        ("grid:ask=all", "ask must be one of one, each"),
        ("folder:n=2", "has no option 'n'"),
    ],
)
def test_wrong_options_are_errors(text: str, message: str, root: Path) -> None:
    with pytest.raises(ValueError, match=message):
        open_dataset(DATASETS, text, root, classifier())


def test_a_grid_needs_the_network(root: Path) -> None:
    with pytest.raises(ValueError, match="give the model"):
        DATASETS["grid"](root)
