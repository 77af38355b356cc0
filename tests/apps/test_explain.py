"""`captum-groupcam explain`: what is explained, and what the pictures show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from captum_groupcam import GroupCAM
from captum_groupcam.apps._explain import find_class
from captum_groupcam.images import open_image
from captum_groupcam.methods import METHODS, offered_methods
from captum_groupcam.metrics.functional import deletion_insertion
from captum_groupcam.models import load_model
from captum_groupcam.visualization import save_figure
from tests.apps.command_line import explain

Figures: TypeAlias = dict[str, Figure]
CATS = ("tabby", "tiger cat", "Egyptian cat")


@pytest.fixture
def drawn(monkeypatch) -> Figures:
    """The figures that are written, by the names of their files."""
    figures: Figures = {}

    def save_and_keep(figure: Figure, path: Path) -> Path:
        figures[path.name] = figure
        return save_figure(figure, path)

    monkeypatch.setattr("captum_groupcam.apps._explain.save_figure", save_and_keep)
    return figures


def test_a_cat_is_explained(cat_file: Path, tmp_path: Path) -> None:
    result = explain(cat_file, "--out", tmp_path / "new" / "out")
    assert result.exit_code == 0, result.output
    classes = [line for line in result.stdout.splitlines() if "%" in line]
    assert len(classes) == 5
    assert all(any(name in line for line in classes[:3]) for name in CATS)
    percentages = [float(line.split("%")[0]) for line in classes]
    assert percentages == sorted(percentages, reverse=True)
    path = tmp_path / "new" / "out" / "cat_group_cam_n_groups=4.png"
    assert str(path) in result.stdout
    with Image.open(path) as overlay:
        assert overlay.size > (300, 300)


@pytest.mark.parametrize("method", ["grad_cam", "group_cam_gradient_free", "guided_backprop"])
def test_other_methods(method: str, cat_file: Path, tmp_path: Path) -> None:
    result = explain(cat_file, "--method", method, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / f"cat_{method}.png").is_file()


def test_groups_and_curves_are_drawn_too(cat_file: Path, tmp_path: Path, drawn: Figures) -> None:
    result = explain(
        *(cat_file, "--method", "group_cam_gradient_free:n_groups=4"),
        *("--groups", "--curves", "--out", tmp_path),
    )
    assert result.exit_code == 0, result.output
    stem = "cat_group_cam_gradient_free_n_groups=4"
    assert sorted(drawn) == [f"{stem}.png", f"{stem}_curves.png", f"{stem}_groups.png"]
    assert all(str(tmp_path / name) in result.stdout.splitlines() for name in drawn)

    # Against the library, step by step.
    model = load_model("efficientnet_lite0")
    inputs = model.preprocess(open_image(cat_file)).unsqueeze(0)
    target = int(model.network(inputs).argmax())
    attributions, scores = GroupCAM(model.network, model.layer.module).attribute(
        inputs,
        target,
        attribute_to_layer_input=True,
        n_groups=4,
        gradient_free=True,
        return_group_scores=True,
    )
    titles = [axes.get_title() for axes in drawn[f"{stem}_groups.png"].axes]
    ranked = scores[0].argsort(descending=True).tolist()
    assert titles == [f"group {group}: {scores[0, group]:+.3f}" for group in ranked]
    areas = deletion_insertion(model.network, attributions, inputs, target)
    left, right = drawn[f"{stem}_curves.png"].axes
    name = "group_cam_gradient_free:n_groups=4"
    assert left.lines[0].get_label() == f"{name}: {float(areas.deletion):.3f}"
    assert right.lines[0].get_label() == f"{name}: {float(areas.insertion):.3f}"


def test_methods_without_groups_have_no_panels_of_them(cat_file: Path, tmp_path: Path) -> None:
    result = explain(cat_file, "--method", "grad_cam", "--groups", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "grad_cam has no groups; with --groups go group_cam" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [(), ("--method", "grad_cam"), ("--layer", "blocks.9")],
    ids=["group_cam", "grad_cam", "a layer"],
)
def test_a_transformer_is_explained(options, cat_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    model = ("--model", "timm:vit_tiny_patch16_224", "--weights", "random")
    result = explain(cat_file, *model, *options, "--target", 3, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").iterdir())) == 1


#: So that the methods which ask the network thousands of times are quick.
FEW_QUERIES = {
    "rise": {"n_masks": 8},
    "xrai": {"n_steps": 2},
    "integrated_gradients": {"n_steps": 2},
    "smooth_grad": {"n_samples": 2},
    "occlusion": {"window": 112},
    "gradient_shap": {"n_samples": 2},
    "feature_ablation": {"n_segments": 16},
    "lime": {"n_samples": 4, "n_segments": 16},
    "kernel_shap": {"n_samples": 4, "n_segments": 16},
    "shapley_value_sampling": {"n_samples": 1, "n_segments": 16},
    "internal_influence": {"n_steps": 2},
    "layer_conductance": {"n_steps": 2},
}
#: They cannot explain the layer, or the network.
REFUSED = ("cam", "lrp", "attention_rollout", "le_grad")


def test_all_methods_in_one_picture(
    cat_file: Path, tmp_path: Path, drawn: Figures, monkeypatch
) -> None:
    for name, options in FEW_QUERIES.items():
        monkeypatch.setitem(METHODS, name, replace(METHODS[name], fixed=options))
    # A layer of 16 channels, hence as many queries of Score-CAM.
    result = explain(cat_file, "--method", "all", "--layer", "_blocks.0._bn2", "--out", tmp_path)
    assert result.exit_code == 1
    assert all(f"cat.png: {name}: " in result.stderr for name in REFUSED)
    assert f"{len(REFUSED)} failures, 1 file found" in result.stderr
    titles = [axes.get_title() for axes in drawn["cat_all.png"].axes]
    expected = [name for name in offered_methods() if name not in REFUSED]
    assert titles[1:] == [*expected, "", ""]  # and what the colours mean
    assert (tmp_path / "cat_all.png").is_file()


def test_the_target_is_an_index_or_a_name(cat_file: Path, tmp_path: Path) -> None:
    maps = {}
    for target in ("EGYPTIAN CAT", "285", "espresso"):
        result = explain(cat_file, "--target", target, "--out", tmp_path / target)
        assert result.exit_code == 0, result.output
        maps[target] = (tmp_path / target / "cat_group_cam_n_groups=4.png").read_bytes()
    assert maps["EGYPTIAN CAT"] == maps["285"] != maps["espresso"]


def test_the_options_reach_the_method(cat_file: Path, tmp_path: Path) -> None:
    maps = set()
    for number, options in enumerate(
        [
            (),
            ("--method", "group_cam:n_groups=2"),
            ("--method", "group_cam:denoise_percentile=None"),
            ("--layer", "_blocks.10._bn2"),
            ("--method", "group_cam:layer=_blocks.9._bn2"),
        ]
    ):
        result = explain(cat_file, "--out", tmp_path / str(number), *options)
        assert result.exit_code == 0, result.output
        (picture,) = (tmp_path / str(number)).iterdir()
        assert picture.name.startswith("cat_group_cam")
        maps.add(picture.read_bytes())
    assert len(maps) == 5


def test_other_models_and_weights(cat_file: Path, shared: Path, tmp_path: Path) -> None:
    weights = shared / "models" / "squeezenet1_1_imagenetnorm.pth"
    result = explain(
        *(cat_file, "--model", "squeezenet1_1", "--weights", weights, "--out", tmp_path / "out")
    )
    assert result.exit_code == 0, result.output
    assert any(name in result.stdout for name in CATS)


def test_a_layer_without_positions_is_reported(cat_file: Path, tmp_path: Path) -> None:
    result = explain(cat_file, "--layer", "_fc", "--out", tmp_path)
    assert result.exit_code == 1
    assert "cat.png: " in result.stderr
    assert "spatial" in result.stderr


def test_find_class() -> None:
    names = ["tabby", "crane", "Egyptian cat", "crane", "tiger cat"]
    assert find_class("tabby", names) == find_class("0", names) == 0
    assert find_class(" egyptian CAT ", names) == 2
    with pytest.raises(ValueError, match=r"Several classes are named 'Crane'.*\[1, 3\]"):
        find_class("Crane", names)
    with pytest.raises(ValueError, match=r"one of Egyptian cat \(2\), tiger cat \(4\)\?"):
        find_class("cat", names)
    with pytest.raises(ValueError, match="No class is named 'xyz'; give its index"):
        find_class("xyz", names)


def test_an_accelerated_network_draws_the_same(cat_file: Path, tmp_path: Path) -> None:
    def pixels(*arguments: object) -> np.ndarray:
        result = explain(cat_file, "--out", tmp_path, *arguments)
        assert result.exit_code == 0
        assert ("49 batch normalisations are folded" in result.stdout) == bool(arguments)
        return np.asarray(Image.open(tmp_path / "cat_group_cam_n_groups=4.png")).astype(int)

    assert abs(pixels("--accelerate") - pixels()).max() <= 2


OWN_NETWORK = """
import threading, torch
from torch import nn
from captum_groupcam.models import ImageClassifier, Preprocessing

def folds(norm=nn.BatchNorm2d):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3), norm(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, 5),
        )
    return ImageClassifier(network, Preprocessing(32, (0.5,) * 3, (0.5,) * 3), None, "2")

def has_no_norm():
    return folds(nn.Identity)

def has_a_lock():
    model = folds()
    model.network.lock = threading.Lock()
    return model
"""


@pytest.mark.parametrize(
    ("network", "images", "options", "said"),
    [
        ("folds", 2, (), "1 batch normalisations are folded"),
        ("folds", 2, ("--no-accelerate",), ""),
        ("folds", 1, (), ""),
        ("folds", 1, ("--accelerate",), "1 batch normalisations are folded"),
        ("folds", 2, ("--curves", "--method", "grad_cam"), ""),
        ("has_no_norm", 2, (), ""),
        ("has_a_lock", 2, (), "Queries are answered by the network as it is: The network cannot"),
    ],
)
def test_many_queries_are_accelerated(
    network: str, images: int, options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN_NETWORK)
    noise = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")

    def drawn(folder: str, *options: str) -> np.ndarray:
        method = () if "--method" in options else ("--method", "rise:n_masks=300")
        out = tmp_path / folder
        where = ("--model", f"{tmp_path / 'own.py'}:{network}", "--out", out)
        result = explain(tmp_path / "photos", *where, *method, *options)
        assert result.exit_code == 0, result.output
        if folder == "found":
            heard = [
                line
                for line in result.stdout.splitlines()
                if "folded" in line or "as it is" in line
            ]
            assert (len(heard) == 1 and said in heard[0]) if said else not heard
        return np.asarray(Image.open(sorted(out.iterdir())[0])).astype(int)

    assert abs(drawn("found", *options) - drawn("plain", "--no-accelerate", *options)).max() <= 2
