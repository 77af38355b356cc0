from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

import captum_groupcam.apps
from captum_groupcam import GroupCAM
from captum_groupcam.__main__ import main
from captum_groupcam.apps._explain import find_class
from captum_groupcam.apps._files import file_part, output_names
from captum_groupcam.apps.cli import app
from captum_groupcam.images import open_image
from captum_groupcam.methods import METHODS, MethodSpec, offered_methods
from captum_groupcam.metrics.functional import deletion_insertion
from captum_groupcam.models import load_model
from captum_groupcam.visualization import save_figure

Figures: TypeAlias = dict[str, Figure]
CATS = ("tabby", "tiger cat", "Egyptian cat")


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def explain(*arguments: object):
    few = () if "--method" in arguments else ("--method", "group_cam:n_groups=4")
    return run("explain", *few, *arguments)


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


def test_a_damaged_image_does_not_stop_the_others(
    cat_file: Path, damaged_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (tmp_path / "empty").mkdir()
    shutil.copy(cat_file, folder / "z.png")
    out = tmp_path / "out"
    result = explain(
        damaged_file, tmp_path / "missing.png", tmp_path / "empty", folder, cat_file, "--out", out
    )
    assert result.exit_code == 1
    assert f"{damaged_file}: cannot be read as an image" in result.stderr
    assert "missing.png: no such file" in result.stderr
    assert "empty: no image in this folder" in result.stderr
    assert "3 failures, 3 files found" in result.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "cat_group_cam_n_groups=4.png",
        "z_group_cam_n_groups=4.png",
    ]


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--method", "no_cam"],
            "Unknown method 'no_cam'; did you mean",
        ),
        (["--model", "efficientnet_lite"], "efficientnet_lite0"),
        (["--layer", "_blocks.99"], "no layer '_blocks.99'; did you mean _blocks.9"),
        (["--target", "tabbi"], "No class is named 'tabbi'; did you mean one of tabby (281)"),
        (["--target", "1000"], "Class 1000 is out of range, there are 1000 classes"),
        (["--method", "group_cam:n_gruops=8"], "no option 'n_gruops'; did you mean n_groups?"),
        (["--method", "group_cam:denoise_percentile=much"], "must be float | None, got 'much'"),
        (["--method", "group_cam_selective:gradient_free=True"], "no option 'gradient_free'"),
        (["--device", "abacus"], "Device 'abacus' cannot be used"),
        (["--weights", "nowhere.pth"], "Unknown weights 'nowhere.pth'"),
        (["--method", "all:n_groups=8"], "Unknown method 'all'"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, cat_file: Path) -> None:
    result = run("explain", cat_file, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_layer_without_positions_is_reported(cat_file: Path, tmp_path: Path) -> None:
    result = explain(cat_file, "--layer", "_fc", "--out", tmp_path)
    assert result.exit_code == 1
    assert "cat.png: " in result.stderr
    assert "spatial" in result.stderr


def test_an_unwritable_folder_is_reported_before_anything_is_computed(cat_file: Path) -> None:
    result = explain(cat_file, "--out", cat_file / "out")
    assert result.exit_code == 2
    assert f"Nothing can be written to --out {cat_file / 'out'}: Not a directory" in result.stderr
    assert "%" not in result.output


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


def test_methods_with_other_options_have_other_files() -> None:
    specs = [
        *("layer_cam", "layer_cam:smooth=flips", "layer_cam:layer=smooth=flips"),
        *("layer_cam:layers=(a.b,c),merge=product", "layer_cam:layers=(a_b,c),merge=product"),
        *("layer_cam:layers=(a/b,c)", "layer_cam:layers=(a_b,c)", "layer_cam:layers=('a:b',c)"),
        *(f"layer_cam:layer={'a' * 300}", f"layer_cam:layer={'a' * 301}"),
    ]
    parts = [file_part(MethodSpec.parse(text)) for text in specs]
    assert parts[:2] == ["layer_cam", "layer_cam_smooth=flips"]
    assert parts == [file_part(MethodSpec.parse(text)) for text in specs]
    assert len(set(parts)) == len(specs)
    assert not any(set("<>:\"/\\|?*'") & set(part) for part in parts)
    (name,) = output_names([Path(f"{'x' * 250}.png")], parts[-1], Path("out"))
    assert len(name) <= 255


def test_help_lists_what_is_registered(monkeypatch) -> None:
    method = replace(METHODS["grad_cam"], name="mine_alone")
    assert "mine_alone" not in run("explain", "--help").output
    monkeypatch.setitem(METHODS, "mine_alone", method)
    assert "mine_alone" in run("explain", "--help").output


def test_no_output_takes_the_place_of_another_or_of_an_input(tmp_path: Path) -> None:
    files = [Path("a/cat.png"), Path("b/cat.jpg"), Path("b/CAT.png"), Path("c/cat_m_2.png")]
    names = output_names(files, "m", tmp_path)
    assert len({name.casefold() for name in names}) == 4
    assert names[0] == "cat_m.png"

    inputs = [tmp_path / "cat.jpg", tmp_path / "cat_m.png"]
    names = output_names(inputs, "m", tmp_path)
    assert not {tmp_path / name for name in names} & set(inputs)


def test_brackets_in_a_name_are_no_markup(cat_file: Path, tmp_path: Path) -> None:
    path = cat_file.rename(tmp_path / "[bold]cat.png")
    result = explain(path, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    first, *_, last = filter(None, result.stdout.splitlines())
    assert first == str(path)
    assert last == str(tmp_path / "out" / "[bold]cat_group_cam_n_groups=4.png")


#: Names that a terminal would obey, cannot show, or that are as long as can be.
ODD = [
    "\x1b[2J\x1b[31mred.png",
    "two\nlines.png",
    "bell\a.png",
    "\u202egnp.exe.png",
    os.fsdecode(b"not utf-8 \xff\xfe.png"),
    "cafe\u0301 \u6f22\u5b57 \U0001f408.png",
    f"{'x' * 251}.png",
    "$a_b$.png",
    ":smile: [bold]x[bold].png",
    "-- out.png",
]


def test_odd_names_do_not_end_a_batch(cat_file: Path, tmp_path: Path) -> None:
    """In a terminal of ASCII, beside a path that no file system takes."""
    folder, out = tmp_path / "odd", tmp_path / "out"
    folder.mkdir()
    for name in ODD:
        shutil.copy(cat_file, folder / name)
    (folder / "broken\x1b[31m.jpg").write_bytes(b"no picture")
    arguments = ["-m", "captum_groupcam", "explain", folder, tmp_path / ("y" * 300), cat_file]
    done = subprocess.run(
        [sys.executable, *map(os.fspath, arguments), "--method=grad_cam", f"--out={out}"],
        capture_output=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    printed = (done.stdout + done.stderr).decode("ascii")
    assert "Traceback" not in printed
    assert all(character.isprintable() or character == "\n" for character in printed)
    assert r"\x1b[2J\x1b[31mred.png" in printed
    assert r"two\nlines.png" in printed
    assert "2 failures, 12 files found" in printed
    assert len(list(out.iterdir())) == len(ODD) + 1
    assert all(file.name.endswith(".png") for file in out.iterdir())


def test_a_folder_without_permission_does_not_end_a_batch(cat_file: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0)
    try:
        if os.access(locked, os.R_OK):
            pytest.skip("this user may read anything")
        result = explain(locked, cat_file, "--out", tmp_path / "out")
    finally:
        locked.chmod(0o700)
    assert result.exit_code == 1
    assert f"{locked}: cannot be searched" in result.stderr
    assert (tmp_path / "out" / "cat_group_cam_n_groups=4.png").is_file()


def test_what_is_left_out_of_a_folder_is_said(cat_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(cat_file, folder)
    for name in ("a.txt", "b.txt", "c.csv", "d.csv", ".hidden.png"):
        (folder / name).touch()
    result = explain(folder, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    said = f"{folder}: a.txt, b.txt, c.csv and 1 more left out: not an image file by its name"
    assert said in result.stdout.splitlines()
    assert f"{folder}: .hidden.png left out: hidden" in result.stdout.splitlines()


def test_only_pictures_of_this_program_are_overwritten(cat_file: Path, tmp_path: Path) -> None:
    out, mine = tmp_path / "out", tmp_path / "out" / "cat_group_cam_n_groups=4.png"
    assert explain(cat_file, "--out", out).exit_code == 0
    first = mine.read_bytes()
    assert explain(cat_file, "--out", out, "--target", "tabby").exit_code == 0
    assert mine.read_bytes() != first

    shutil.copy(cat_file, mine)
    other = shutil.copy(cat_file, tmp_path / "dog.png")
    result = explain(cat_file, other, "--out", out)
    assert result.exit_code == 1
    assert f"{cat_file}: {mine} is there, and not known as a picture of this" in result.stderr
    assert mine.read_bytes() == cat_file.read_bytes()
    assert (out / "dog_group_cam_n_groups=4.png").is_file()
    assert explain(cat_file, "--out", out, "--force").exit_code == 0
    assert mine.read_bytes() == first


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


def test_pictures_are_not_written_through_links(cat_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "cat_group_cam_n_groups=4.png").symlink_to(tmp_path / "nowhere.png")
    assert explain(cat_file, "--out", out).exit_code == 1
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    (out / "cat_group_cam_n_groups=4.png").unlink()
    (out / "cat_group_cam_n_groups=4.png").symlink_to(victim)
    assert explain(cat_file, "--out", out).exit_code == 1
    assert explain(cat_file, "--out", out, "--force").exit_code == 0
    assert victim.read_text() == "precious"
    assert not (out / "cat_group_cam_n_groups=4.png").is_symlink()
    assert not (tmp_path / "nowhere.png").exists()


def test_the_demo_overwrites_nothing_of_others(tmp_path: Path) -> None:
    path = tmp_path / "demo.png"
    path.write_text("precious")
    result = run("demo", "--out", path, "--n-groups", 1)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert path.read_text() == "precious"


def test_the_same_stem_twice(cat_file: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    shutil.copy(cat_file, tmp_path / "b" / "cat.png")
    out = tmp_path / "out"
    result = explain(cat_file, tmp_path / "b", cat_file, "--out", out)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in out.iterdir())
    assert names == ["cat_group_cam_n_groups=4.png", "cat_group_cam_n_groups=4_2.png"]


def test_the_demo_writes_one_picture(tmp_path: Path) -> None:
    path = tmp_path / "new" / "demo.png"
    result = run("demo", "--out", path, "--n-groups", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == str(path.resolve())
    with Image.open(path) as picture:
        assert picture.width > 900


def test_main_runs_the_command_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["captum-groupcam", "--help"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert "explain" in capsys.readouterr().out


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_main_says_what_to_install(monkeypatch, package: str) -> None:
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "captum_groupcam.apps.cli")
    monkeypatch.delattr(captum_groupcam.apps, "cli")
    with pytest.raises(
        SystemExit, match=rf"package {package}.*pip install 'captum_groupcam\[cli\]'"
    ):
        main()
