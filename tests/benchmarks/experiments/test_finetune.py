"""Fine-tuning: arms that differ in nothing else, runs that are stopped or shared."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from benchmarks.controls import ShiftedBlur
from benchmarks.experiments.finetune.command import finetune
from benchmarks.experiments.finetune.data import (
    Pictures,
    class_indices,
    derived_seed,
    image_folder,
    shuffled,
)
from benchmarks.experiments.finetune.results import crossed_bootstrap
from benchmarks.experiments.finetune.training import map_entropy
from benchmarks.run.configuration import ConfigurationError
from captum_groupcam.models import ImageClassifier, load_model
from tests.benchmarks.experiments import finetune_command

ROOT = Path(__file__).parents[3]
ARMS = ["plain", "group_cam", "random", "grad_cam"]
OPTIONS: dict[str, Any] = {
    "seeds": 2,
    "model": "tiny",
    "epochs": 4,
    "plain_epochs": 1,
    "batch_size": 4,
    "learning_rate": 0.05,
    "image_size": "24",
    "train_per_class": 6,
    "n_groups": 4,
    "n_maps": 3,
    "accelerator": "cpu",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes that differ in what a noisy square shows: 7 pictures to train, 5 and 4 to validate.

    Of the nine, one of two processes gets a batch more.
    """
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for label in range(2):
        for index in range(12 - label):
            pixels = rng.integers(0, 255, (32, 32, 3))
            y, x = rng.integers(0, 16, 2)
            pixels[y : y + 16, x : x + 16, label] //= 4
            folder = root / ("train" if index < 7 else "val") / f"class {label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All arms, without interruption."""
    out = tmp_path_factory.mktemp("whole")
    finetune(data, out, **OPTIONS)
    return out


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def without_seconds(path: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines(path)]


def assert_same_epochs(path: Path, other: Path) -> None:
    for row, expected in zip(without_seconds(path), without_seconds(other), strict=True):
        for column in ("train_loss", "val_loss", "map_entropy"):
            value, wanted = row.pop(column), expected.pop(column)
            assert float(value) == pytest.approx(float(wanted), rel=1e-5), (row, column)
        assert row == expected


def command(data: Path, out: Path, **options: Any) -> list[str]:
    options = OPTIONS | {"data": data, "out": out} | options
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def run(data: Path, out: Path, die_at: int = 0, **options: Any) -> Any:
    return subprocess.run(
        [sys.executable, finetune_command.__file__, *command(data, out, **options)],
        env=os.environ | {"DIE_AT": str(die_at), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def weights(out: Path, run: str) -> dict[str, torch.Tensor]:
    (checkpoint,) = (out / "runs" / run).glob("*.pt")
    return torch.load(checkpoint, weights_only=True)["network"]


# --- what is written


def test_one_row_an_epoch(whole: Path) -> None:
    rows = lines(whole / "epochs.csv")
    keys = [(row["seed"], row["arm"], row["epoch"]) for row in rows]
    expected = [
        (str(seed), arm, str(epoch)) for seed in range(2) for arm in ARMS for epoch in range(1, 5)
    ]
    assert keys == expected
    rates = [float(row["learning_rate"]) for row in rows[:4]]
    assert rates == pytest.approx([0.05, 0.05, 0.05, 0.005])


def test_arms_differ_in_the_augmented_epochs_only(whole: Path) -> None:
    measured = {
        (row["arm"], row["seed"], row["epoch"]): (row["train_loss"], row["val_loss"])
        for row in lines(whole / "epochs.csv")
    }
    for arm in ARMS[1:]:
        for seed in "01":
            assert measured[arm, seed, "1"] == measured["plain", seed, "1"]
            assert measured[arm, seed, "2"] != measured["plain", seed, "2"]
    assert len({measured[arm, "0", "4"] for arm in ARMS}) == 4
    assert measured["plain", "0", "1"] != measured["plain", "1", "1"]


def test_cost_is_that_of_augmented_steps(whole: Path) -> None:
    for row in lines(whole / "epochs.csv"):
        augmented = row["arm"] != "plain" and row["epoch"] != "1"
        assert (float(row["blur_seconds"]) > 0) == augmented
        assert float(row["step_seconds"]) > 0


def check_summary(out: Path) -> None:
    """The table of a summary against the predictions, counted by hand."""
    predictions = lines(out / "predictions.csv")
    runs = [name for name in predictions[0] if name not in ("picture", "label")]
    top1 = {
        run: 100 * sum(line[run] == line["label"] for line in predictions) / len(predictions)
        for run in runs
    }
    last = {f"{row['arm']}-{row['seed']}": row for row in lines(out / "epochs.csv")}
    text = (out / "summary.md").read_text()
    for run in runs:
        assert 100 * float(last[run]["top1"]) == pytest.approx(top1[run])
    for arm in ARMS:
        (line,) = re.findall(rf"^\| {arm} \| .*$", text, re.M)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        seeds = [run.rpartition("-")[2] for run in runs if run.startswith(f"{arm}-")]
        tops = [top1[f"{arm}-{seed}"] for seed in seeds]
        assert float(cells[1]) == pytest.approx(np.mean(tops), abs=0.01)
        assert [float(top) for top in cells[2].split(", ")] == pytest.approx(tops, abs=0.01)
        entropies = [float(last[f"{arm}-{seed}"]["map_entropy"]) for seed in seeds]
        assert float(cells[4]) == pytest.approx(np.mean(entropies), abs=1e-4)
        if arm == "plain":
            assert (cells[3], cells[5]) == ("", "1.00 x")
            continue
        found = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", cells[3])
        assert found
        mean, low, high = map(float, found.groups())
        differences = [top1[f"{arm}-{seed}"] - top1[f"plain-{seed}"] for seed in seeds]
        assert mean == pytest.approx(np.mean(differences), abs=0.01)
        assert low <= mean <= high
        assert float(cells[5].rstrip(" x")) > 1


def test_summary_is_what_the_files_say(whole: Path) -> None:
    check_summary(whole)
    names = [line["picture"] for line in lines(whole / "predictions.csv")]
    assert names == [
        f"class {label}/{i}.png"
        for label in range(2)
        for i in sorted(range(7, 12 - label), key=str)
    ]
    assert (whole / "curves.png").stat().st_size > 1000


def test_committed_results_are_what_their_files_say() -> None:
    check_summary(ROOT / "benchmarks" / "results" / "finetune")


# --- the training itself, by another loop


@pytest.mark.parametrize("arm", ["plain", "random"])
def test_training_is_a_plain_loop(arm: str, whole: Path, data: Path) -> None:
    model = load_model("tiny", preprocess={"image_size": 24})
    network = model.network
    torch.manual_seed(derived_seed(1))
    network.head = nn.Linear(8, 2)
    folder = image_folder(data / "train")
    chosen = Pictures.training(folder, model, [0, 1], 1).some_of_each_class(6, 1)
    blur = ShiftedBlur(network, network.more, 4, seed=1)
    parameters = list(network.parameters())
    velocity = [torch.zeros_like(p) for p in parameters]
    losses: list[float] = []
    for epoch in range(4):
        pictures = Pictures.training(folder, model, [0, 1], derived_seed(1, epoch))
        order = chosen[shuffled(12, 1, epoch)]
        for step in range(3):
            items = [pictures[int(index)] for index in order[4 * step : 4 * step + 4]]
            images = torch.stack([image for image, _, _ in items])
            labels = torch.tensor([label for _, label, _ in items])
            if arm != "plain" and epoch >= 1:
                blur.step = 3 * epoch + step
                images = blur(images, labels)
            loss = F.cross_entropy(network(images), labels)
            losses.append(loss.item())
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for p, g, v in zip(parameters, gradients, velocity, strict=True):
                    v.mul_(0.9).add_(g + 1e-4 * p)
                    p.sub_((0.005 if epoch == 3 else 0.05) * v)
    rows = [r for r in lines(whole / "epochs.csv") if (r["arm"], r["seed"]) == (arm, "1")]
    found = [float(row["train_loss"]) for row in rows]
    assert found == pytest.approx(np.reshape(losses, (4, 3)).mean(1).tolist(), rel=1e-4)
    torch.testing.assert_close(
        weights(whole, f"{arm}-1"), dict(network.state_dict()), rtol=1e-3, atol=1e-4
    )


def test_frozen_part_and_statistics(data: Path, tmp_path: Path) -> None:
    start = load_model("tiny").network.state_dict()
    small = OPTIONS | {"seeds": 1, "epochs": 1, "arms": "plain", "train_from": "more.1"}
    for statistics in (False, True):
        out = tmp_path / str(statistics)
        finetune(data, out, **small, batch_statistics=statistics)
        after = weights(out, "plain-0")
        changed = {
            name for name in start if name in after and not torch.equal(start[name], after[name])
        }
        learned = {"more.1.weight", "more.1.bias", "head.weight", "head.bias"}
        counted = {"more.1.running_mean", "more.1.running_var", "more.1.num_batches_tracked"}
        assert changed == learned | (counted if statistics else set())


def test_kept_head_has_all_classes(data: Path, tmp_path: Path) -> None:
    finetune(data, tmp_path, **OPTIONS | {"seeds": 1, "epochs": 1, "arms": "plain"}, head="keep")
    assert weights(tmp_path, "plain-0")["head.weight"].shape == (5, 8)


# --- stopped and shared runs


def test_a_killed_run_ends_as_if_nothing_had_been(data: Path, whole: Path, tmp_path: Path) -> None:
    for point in (1, 6):  # in the first epoch of all, and in the second arm
        killed = run(data, tmp_path, die_at=point, seeds=1)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    finetune(data, tmp_path, **OPTIONS)
    # Another process rounds otherwise, by where its memory lies.
    assert_same_epochs(tmp_path / "epochs.csv", whole / "epochs.csv")
    assert lines(tmp_path / "predictions.csv") == lines(whole / "predictions.csv")
    for arm in ARMS:
        before, after = weights(whole, f"{arm}-0"), weights(tmp_path, f"{arm}-0")
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)


def test_two_processes_are_one(data: Path, whole: Path, tmp_path: Path) -> None:
    done = run(data, tmp_path, seeds=1, devices=2, strategy="ddp", arms="plain random")
    assert done.returncode == 0, done.stderr
    alone = {
        (row["arm"], row["seed"], row["epoch"]): row
        for row in without_seconds(whole / "epochs.csv")
    }
    rows = without_seconds(tmp_path / "epochs.csv")
    assert len(rows) == 8
    for row in rows:
        expected = alone[row["arm"], row["seed"], row["epoch"]]
        for column in ("train_loss", "val_loss", "map_entropy"):
            assert float(row[column]) == pytest.approx(float(expected[column]), rel=1e-3)
        assert float(row["top1"]) == pytest.approx(float(expected["top1"]), abs=0.12)
    for arm in ("plain", "random"):
        torch.testing.assert_close(
            weights(tmp_path, f"{arm}-0"), weights(whole, f"{arm}-0"), rtol=1e-3, atol=1e-4
        )


def test_a_complete_run_does_nothing_and_may_grow(data: Path, whole: Path, tmp_path: Path) -> None:
    finetune(data, tmp_path, **OPTIONS | {"seeds": 1, "arms": "plain grad_cam"})
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*.*")}
    finetune(data, tmp_path, **OPTIONS)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert_same_epochs(tmp_path / "epochs.csv", whole / "epochs.csv")


# --- what is refused


def test_another_configuration_is_noticed(data: Path, whole: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"learning_rate: 0\.05, now 0\.1"):
        finetune(data, whole, **OPTIONS | {"learning_rate": 0.1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arms": "plain blurred"}, "Unknown arms blurred: expected some of plain, group_cam"),
        ({"head": "drop"}, "head must be 'replace' or 'keep'"),
        ({"batch_size": 13}, "12 training pictures do not fill a batch of 13"),
        ({"train_per_class": 8}, "8 pictures of each class .* one class has 7"),
        ({"train_from": "nowhere"}, "Unknown module 'nowhere': expected one of features"),
        ({"learning_rate": 1e30}, "choose a smaller learning rate"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], message: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        finetune(data, tmp_path, **OPTIONS | {"arms": "plain"} | options)


def test_data_that_do_not_fit(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder with pictures"):
        finetune(tmp_path / "nothing", tmp_path, **OPTIONS)


# --- parts


def test_classes_by_name_and_wordnet_id(lite0: ImageClassifier) -> None:
    pytest.importorskip("timm")
    assert class_indices(lite0, ["n01440764", "n03888257"]) == [0, 701]
    assert class_indices(lite0, ["tench", "parachute"]) == [0, 701]
    with pytest.raises(ValueError, match="does not know the classes thing"):
        class_indices(lite0, ["tench", "thing"])
    with pytest.raises(ValueError, match="does not know the classes"):
        class_indices(load_model("tiny"), ["n03888257"])


def test_pictures_do_not_depend_on_who_loads_them(data: Path) -> None:
    pictures = Pictures.training(image_folder(data / "train"), load_model("tiny"), [0, 1], 5)
    state = torch.get_rng_state()
    alone = [pictures[index][0] for index in (3, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    ((images, labels, where),) = pictures.batches([3, 1], 2, workers=1)
    assert torch.equal(images, torch.stack(alone))
    assert (labels.tolist(), where.tolist()) == ([0, 0], [3, 1])
    assert not torch.equal(alone[0], alone[1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1e4, width=32), min_size=2, max_size=20))
def test_entropy_is_scipys(values: list[float]) -> None:
    found = float(map_entropy(torch.tensor(values).view(1, 1, -1)))
    total = sum(values)
    expected = scipy.stats.entropy(values) / np.log(len(values)) if total > 0 else 1
    assert found == pytest.approx(float(expected), abs=1e-4)


def test_crossed_bootstrap_has_the_variance_of_its_effects() -> None:
    rng = np.random.default_rng(0)

    def width(seeds: float, pictures: float) -> float:
        """Of the interval, in standard deviations of a normal mean."""
        values = seeds * scipy.stats.norm.ppf((np.arange(40) + 0.5) / 40)[
            :, None
        ] + pictures * scipy.stats.norm.ppf((np.arange(90) + 0.5) / 90)
        interval = crossed_bootstrap(rng.permutation(values), seed=1)
        assert interval.mean == pytest.approx(values.mean())
        return (interval.high - interval.low) / (2 * 1.96)

    assert width(1, 0) == pytest.approx(1 / np.sqrt(40), rel=0.05)
    assert width(0, 1) == pytest.approx(1 / np.sqrt(90), rel=0.05)
    assert width(1, 1) == pytest.approx(np.sqrt(1 / 40 + 1 / 90), rel=0.05)
