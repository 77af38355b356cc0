"""Runs that are stopped, shared among processes, or meet bad data."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.data import DATASETS, Dataset, Sample, to_inputs
from benchmarks.measures.explained import Explained
from benchmarks.measures.registry import MEASURES
from benchmarks.run.configuration import ConfigurationError
from benchmarks.run.folder import RunFolder
from benchmarks.run.loop import RunSettings, choose_measures, prepare, run
from benchmarks.run.rows import COST, Row, RowError
from captum_groupcam import GroupCAM
from captum_groupcam.methods import METHODS, MethodSpec
from captum_groupcam.models import load_model
from tests.benchmarks.report.report_runs import configuration

ROOT = Path(__file__).parents[3]
N_SAMPLES = 3
SPECS = [MethodSpec("centre"), MethodSpec("grad_cam"), MethodSpec("random", {"seed": 1})]
MEASURED = ["AverageDrop", "PointingGame"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures with boxes."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    lines = ["file,label,x0,y0,x1,y1"]
    rng = np.random.default_rng(0)
    for index in range(N_SAMPLES):
        pixels = rng.integers(0, 255, (60, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{index}.png")
        lines.append(f"{index}.png,{index},10,10,40,{30 + index}")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that is the same in all processes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pt"
    torch.save(load_model("squeezenet1_1", "random").network.state_dict(), path)
    return path


def settings_for(out: Path, data: Path, weights: Path) -> RunSettings:
    return RunSettings(
        out,
        SPECS,
        MEASURED,
        dataset="folder",
        root=data,
        model="squeezenet1_1",
        weights=str(weights),
        n_shown=1,
        accelerator="cpu",
    )


@pytest.fixture
def settings(data: Path, weights: Path, tmp_path: Path) -> RunSettings:
    return settings_for(tmp_path / "run", data, weights)


@pytest.fixture(scope="module")
def whole(data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of a run without interruption."""
    folder = run(settings_for(tmp_path_factory.mktemp("whole"), data, weights))
    assert folder is not None
    return folder.rows()


def assert_same(rows: list[Row], expected: list[Row]) -> None:
    """The same rows in the same order but for what takes time, and for rounding."""
    timed = {"seconds", "forward_passes"}

    def about(row: Row) -> Row:
        return replace(row, seconds=0, scores=dict.fromkeys(row.scores, 0.0))

    assert [about(row) for row in rows] == [about(row) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        scores = {name: value for name, value in row.scores.items() if name not in timed}
        for name, value in scores.items():
            assert value == pytest.approx(other.scores[name], rel=1e-3, abs=1e-6), row.key


def command(settings: RunSettings, *more: str) -> list[str]:
    return [
        "compare",
        f"--out={settings.out}",
        f"--dataset={settings.dataset}",
        f"--root={settings.root}",
        f"--model={settings.model}",
        f"--weights={settings.weights}",
        f"--methods={' '.join(map(str, settings.methods))}",
        f"--measures={' '.join(settings.measures or ())}",
        f"--n-shown={settings.n_shown}",
        "--accelerator=cpu",
        *more,
    ]


def test_one_row_a_sample_method_and_measure(whole: list[Row]) -> None:
    expected = [
        (f"{index}.png:{index}", str(spec), measure)
        for index in range(N_SAMPLES)
        for spec in SPECS
        for measure in (COST, *MEASURED)
    ]
    assert [row.key for row in whole] == expected
    assert {row.target for row in whole if row.sample == "1.png:1"} == {1}
    by_key = {row.key: row for row in whole}
    assert by_key["0.png:0", "grad_cam", COST].queries == 1
    assert by_key["0.png:0", "centre", COST].scores["queries"] == 0
    assert by_key["0.png:0", "centre", "AverageDrop"].queries == 2
    # 30 x 20 of 60 x 60 pixels, and the row of input pixels that a border of the box touches
    assert by_key["0.png:0", "centre", COST].cover == pytest.approx(30 * 20 / 3600, rel=0.05)


def test_scores_are_those_of_the_measures(
    whole: list[Row], data: Path, settings: RunSettings
) -> None:
    model = load_model("squeezenet1_1", settings.weights)
    samples = list(DATASETS["folder"](data))
    inputs = to_inputs(samples, model)
    targets = torch.tensor([sample.targets[0] for sample in samples])
    maps = METHODS["grad_cam"](model.network, model.layer)(inputs, targets)
    explained = Explained(
        model.network,
        inputs,
        targets,
        maps,
        boxes=[sample.boxes for sample in samples if sample.boxes is not None],
        image_sizes=torch.tensor([sample.image_size for sample in samples]),
    )
    for measure in MEASURED:
        for score, values in MEASURES[measure](explained).items():
            found = [
                row.scores[score]
                for row in whole
                if (row.method, row.measure) == ("grad_cam", measure)
            ]
            assert found == pytest.approx(values.tolist(), abs=1e-4)


KILLED = """
import os, signal, sys
from benchmarks.__main__ import app
from benchmarks.run.rows import RowWriter

write, left = RowWriter.write, [int(sys.argv[1])]

def write_and_die(self, row):
    if not left[0]:
        self._file.write(row.to_json().encode()[: int(sys.argv[2])])  # half a line
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    write(self, row)

RowWriter.write = write_and_die
app(sys.argv[3:])
"""


def test_a_killed_run_goes_on_as_if_nothing_had_been(
    settings: RunSettings, whole: list[Row]
) -> None:
    """The command itself; that it may be killed at any step is one of the attacks."""
    kept = 0
    for n_rows in (14, 12):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(n_rows), "17", *command(settings)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        kept += n_rows
        rows = RunFolder(settings.out).rows()
        assert len(rows) == kept
        assert_same(rows, whole[:kept])
    before = RunFolder(settings.out).rows()
    folder = run(settings)
    assert folder is not None
    rows = folder.rows()
    assert rows[:kept] == before  # nothing was done twice: even the seconds are the same
    assert_same(rows, whole)


def test_two_machines_give_the_rows_of_one_process(settings: RunSettings, whole: list[Row]) -> None:
    """Two nodes of one process each, as torchrun starts them, that talk by Gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = [
        subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "torch.distributed.run",
                    "--nnodes=2",
                    f"--node-rank={rank}",
                ),
                *("--master-addr=127.0.0.1", f"--master-port={port}", "--nproc-per-node=1"),
                *("-m", "benchmarks", *command(settings, "--num-nodes=2", "--devices=1")),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]
    said = [node.communicate()[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    folder = RunFolder(settings.out)
    assert_same(sorted(folder.rows(), key=_place(whole)), whole)


def _place(rows: list[Row]) -> Callable[[Row], int]:
    places = {row.key: place for place, row in enumerate(rows)}
    return lambda row: places[row.key]


def test_an_accelerated_run_has_the_rows_of_a_plain_one(
    settings: RunSettings, whole: list[Row]
) -> None:
    with pytest.raises(ValueError, match="compiled or accelerated"):
        prepare(replace(settings, accelerated=True, compiled=True))
    folder = run(replace(settings, accelerated=True))
    assert folder is not None
    assert folder.configuration["accelerated"] is True
    assert_same(folder.rows(), whole)


def test_a_complete_run_does_nothing(settings: RunSettings) -> None:
    run(settings)
    results = settings.out / "results.parquet"
    before = results.read_bytes()
    run(settings)
    assert results.read_bytes() == before


def test_methods_measures_and_samples_may_be_added(settings: RunSettings, whole: list[Row]) -> None:
    run(replace(settings, methods=SPECS[:1], measures=MEASURED[:1], limit=2))
    run(replace(settings, methods=SPECS[1:], measures=MEASURED[:1]))
    folder = run(settings)
    assert folder is not None
    assert_same(folder.rows(), whole)


def test_halves_of_the_samples_are_runs_of_their_own(
    settings: RunSettings, whole: list[Row]
) -> None:
    halves = {}
    for samples in ("0::2", "1::2"):
        folder = run(replace(settings, samples=samples, out=settings.out / samples))
        assert folder is not None
        halves[samples] = folder.rows()
        assert folder.configuration["chosen_samples"] == samples
    assert_same(halves["0::2"], [row for row in whole if row.sample in ("0.png:0", "2.png:2")])
    assert_same(halves["1::2"], [row for row in whole if row.sample == "1.png:1"])
    with pytest.raises(ConfigurationError, match="chosen_samples: '0::2', now '1::2'"):
        run(replace(settings, samples="1::2", out=settings.out / "0::2"))


def test_a_run_without_a_choice_of_samples_says_nothing_of_it(settings: RunSettings) -> None:
    folder = run(replace(settings, methods=SPECS[:1], measures=MEASURED[1:], limit=1))
    assert folder is not None
    assert "chosen_samples" not in folder.configuration


@pytest.mark.parametrize("samples", ["", "2", "a:b", "::0", "1:2:3:4", "0:1.5"])
def test_what_is_no_slice_is_refused(samples: str, settings: RunSettings) -> None:
    with pytest.raises(ValueError, match=r"slice start:stop:step, as in 0::2 .* got '"):
        prepare(replace(settings, samples=samples))


def test_a_slice_without_samples_is_refused(settings: RunSettings) -> None:
    with pytest.raises(ValueError, match="has no samples 3:"):
        prepare(replace(settings, samples="3:"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "predicted"}, "target: 'label', now 'predicted'"),
        ({"seed": 1}, "seed: 0, now 1"),
        ({"weights": "random"}, "weights_seed: None, now 0"),
        ({"layer": "features.10"}, "layer: "),
        ({"accelerated": True}, "accelerated: None, now True"),
    ],
)
def test_another_configuration_is_noticed(
    change: dict[str, Any], message: str, settings: RunSettings
) -> None:
    small = replace(settings, methods=SPECS[:1], measures=MEASURED[1:], limit=1)
    run(small)
    results = (settings.out / "results.parquet").read_bytes()
    with pytest.raises(ConfigurationError, match=message):
        run(replace(small, **change))
    assert (settings.out / "results.parquet").read_bytes() == results


def test_a_measure_may_be_described_in_other_words_but_not_change(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    setup = configuration(["centre"])
    folder.configure(setup)
    before = setup["measures"]["PointingGame"]
    reworded = before | {"description": "Counts hits."}
    folder.configure(setup | {"measures": {"PointingGame": reworded}})
    assert folder.configuration["measures"]["PointingGame"] == reworded
    changed = before | {"parameters": {"tolerance": 0}}
    with pytest.raises(ConfigurationError, match="'tolerance': 0"):
        folder.configure(setup | {"measures": {"PointingGame": changed}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ("{}", "it has no 'model'"),
        ("[]", r"it should be of type dict, and is \[\]"),
        ('{"model": 3}', "it has no 'layer'"),
        ("[" * 100_000, "recursion"),
    ],
    ids=["cut", "empty", "list", "parts", "deep"],
)
def test_what_is_no_configuration_is_said(
    content: str, message: str, settings: RunSettings
) -> None:
    settings.out.mkdir()
    (settings.out / "configuration.json").write_text(content)
    with pytest.raises(ConfigurationError, match=rf"is not the configuration .*{message}"):
        run(settings)


def test_rows_that_the_configuration_does_not_know_are_said(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.configure(configuration(["centre"]))
    with folder.writer(0) as writer:
        writer.write(Row("a", "nothing", COST, {"seconds": 1.0}))
    for ask in (folder.rows, lambda: folder.finish({})):
        with pytest.raises(RowError, match="has rows of 'nothing', which is not among the methods"):
            ask()


@pytest.mark.parametrize("value", [[[]], [1], {"a": 1}, "1"])
def test_scores_that_are_no_numbers_are_named(tmp_path: Path, value: object) -> None:
    folder = RunFolder(tmp_path)
    folder.configure(configuration(["centre"]))
    row = {"sample": "a", "method": "centre", "measure": COST, "scores": {"queries": value}}
    (tmp_path / "results-0.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(RowError, match="line 1: not a row of a run"):
        folder.rows()


def test_another_environment_is_reported(
    settings: RunSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    small = replace(settings, methods=SPECS[:1], measures=MEASURED[1:], limit=1)
    run(small)
    path = settings.out / "configuration.json"
    configuration = json.loads(path.read_text())
    configuration["environment"]["torch"] = "1.0"
    path.write_text(json.dumps(configuration))
    run(small)
    assert "torch 1.0 -> " in capsys.readouterr().out


def test_names_are_printed_as_they_are(
    settings: RunSettings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def loader() -> Sample:
        raise OSError("gone")

    named = Dataset({"a.jpg:dog": loader}, has_objects=False)
    monkeypatch.setitem(DATASETS, "named", lambda _root, _names: named)
    small = replace(settings, dataset="named", methods=SPECS[:1], measures=MEASURED[:1])
    run(small)
    assert "a.jpg:dog: OSError: gone" in capsys.readouterr().out


def test_a_damaged_image_is_a_row(data: Path, settings: RunSettings, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    (root / "images").mkdir(parents=True)
    (root / "boxes.csv").write_text((data / "boxes.csv").read_text())
    for index in (0, 2):
        name = f"{index}.png"
        (root / "images" / name).write_bytes((data / "images" / name).read_bytes())
    (root / "images" / "2.png").write_bytes(b"no picture")
    folder = run(replace(settings, root=root, methods=SPECS[:1]))
    assert folder is not None
    failures = {row.sample: row.error for row in folder.rows() if row.error}
    assert set(failures) == {"1.png:1", "2.png:2"}
    assert "2.png" in str(failures["2.png:2"])
    assert len(folder.rows()) == 1 + len(MEASURED) + 2


def test_what_failed_stays_until_it_is_tried_again(
    data: Path, settings: RunSettings, tmp_path: Path
) -> None:
    root = tmp_path / "late"
    (root / "images").mkdir(parents=True)
    (root / "boxes.csv").write_text((data / "boxes.csv").read_text())
    settings = replace(settings, root=root, methods=SPECS[:1])
    folder = run(settings)
    assert folder is not None
    assert sum(row.error is not None for row in folder.rows()) == N_SAMPLES
    for file in (data / "images").iterdir():
        (root / "images" / file.name).write_bytes(file.read_bytes())
    run(settings)
    assert sum(row.error is not None for row in folder.rows()) == N_SAMPLES
    run(replace(settings, retry=True))
    rows = folder.rows()
    assert len(rows) == N_SAMPLES * (1 + len(MEASURED))
    assert all(row.error is None for row in rows)


def test_a_method_that_fails_is_a_row_that_says_why(settings: RunSettings) -> None:
    # Grad-CAM asks for a gradient that is not there: the pooling of the class maps has no layer.
    folder = run(replace(settings, methods=[MethodSpec("cam", layer="features.3"), *SPECS[:1]]))
    assert folder is not None
    failed = [row for row in folder.rows() if row.error]
    assert {row.key[1:] for row in failed} == {("cam:layer=features.3", COST)}
    assert all("pool the layer by its mean" in str(row.error) for row in failed)
    assert sum(row.method == "centre" for row in folder.rows()) == N_SAMPLES * 3


def test_a_class_that_the_network_does_not_have(settings: RunSettings, tmp_path: Path) -> None:
    root = tmp_path / "wrong"
    (root / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "images" / "a.png")
    (root / "boxes.csv").write_text("file,label,x0,y0,x1,y1\na.png,1000,0,0,4,4\n")
    with pytest.raises(ValueError, match="1000"):
        run(replace(settings, root=root))


def test_an_empty_folder(settings: RunSettings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no"):
        run(replace(settings, root=tmp_path))
    with pytest.raises(ValueError, match="Unknown dataset 'imagnet'"):
        run(replace(settings, dataset="imagnet"))


def test_a_full_disk_keeps_the_rows(settings: RunSettings) -> None:
    limited = (
        "import resource, sys; from benchmarks.__main__ import app; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY)); "
        "app(sys.argv[1:])"
    )
    many = replace(
        settings,
        methods=[MethodSpec("random", {"seed": seed}) for seed in range(60)],
        measures=["DeletionInsertion.official"],  # its curves are long
        n_shown=0,
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *command(many)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    message = " ".join(done.stderr.split())
    assert "cannot be written" in message
    assert "the same command continues" in message
    rows = RunFolder(settings.out).rows()
    assert rows
    assert all(row.error is None for row in rows)


def test_two_runs_in_one_folder_are_refused(settings: RunSettings) -> None:
    with (
        RunFolder(settings.out).writer(0),
        pytest.raises((RowError, ConfigurationError), match=r"Another run|has rows but no"),
    ):
        run(settings)


def test_measures_that_cannot_be_used(data: Path) -> None:
    dataset = DATASETS["folder"](data)
    assert "PointingGame" in choose_measures(None, dataset)
    without = replace(dataset, has_objects=False)
    assert "PointingGame" not in choose_measures(None, without)
    with pytest.raises(ValueError, match="PointingGame needs boxes or masks"):
        choose_measures(["PointingGame"], without)
    with pytest.raises(ValueError, match="compares samples with each other"):
        choose_measures(["quantus.Sufficiency"], dataset)
    with pytest.raises(ValueError, match="Unknown measure 'Insertion'"):
        choose_measures(["Insertion"], dataset)


def test_the_likeliest_class_is_explained(settings: RunSettings) -> None:
    evaluator, dataset = prepare(replace(settings, target="predicted"))
    sample = next(iter(dataset))
    prepared = evaluator.prepare(sample)
    scores = evaluator.model.network(prepared.inputs)[0].tolist()
    assert int(prepared.targets) == scores.index(max(scores))
    evaluator, _ = prepare(settings)
    several = replace(sample, targets=(3, 17, 500))
    assert int(evaluator.prepare(several).targets) == max(
        (3, 17, 500), key=lambda index: scores[index]
    )


def test_the_time_of_a_map_is_not_that_of_compiling(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    compile_ = torch.compile

    def backend(graph, inputs):
        events.append("compiled")
        return graph.forward

    class Watched(GroupCAM):
        def attribute(self, *arguments, n_groups: int = 32, internal_batch_size=None, **options):
            events.append("asked")
            sizes = {"n_groups": n_groups, "internal_batch_size": internal_batch_size}
            return super().attribute(*arguments, **sizes, **options)

    monkeypatch.setattr(torch, "compile", lambda *a, **k: compile_(*a, **k, backend=backend))
    monkeypatch.setitem(METHODS, "group_cam", replace(METHODS["group_cam"], explain=Watched))
    specs = [MethodSpec("group_cam", {"n_groups": 3, "internal_batch_size": 3})]
    folder = run(replace(settings, methods=specs, measures=[], limit=2, n_shown=0, compiled=True))
    assert folder is not None
    assert [row.scores["queries"] for row in folder.rows()] == [5, 5]
    before, first, second = "".join(event[0] for event in events).split("a")[1:]
    assert "c" in before
    assert not first + second  # what is timed


def test_pictures_of_the_first_samples_are_kept(settings: RunSettings) -> None:
    folder = run(replace(settings, methods=SPECS[:2], measures=MEASURED[1:]))
    assert folder is not None
    ((shown,), unreadable) = folder.gallery.samples(folder.configuration["methods"])
    assert not unreadable
    assert shown.image.size == (224, 224)
    assert shown.sample == "0.png:0"
    assert shown.boxes == [pytest.approx([10 / 60, 10 / 60, 40 / 60, 30 / 60])]
    assert list(shown.maps) == ["centre", "grad_cam"]
    model = load_model("squeezenet1_1", settings.weights)
    inputs = to_inputs(list(DATASETS["folder"](settings.root or ""))[:1], model)
    expected = METHODS["grad_cam"](model.network, model.layer)(inputs, 0)
    np.testing.assert_allclose(shown.maps["grad_cam"], expected[0, 0].numpy(), atol=1e-5)
