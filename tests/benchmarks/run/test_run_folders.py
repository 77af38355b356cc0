"""A run's folder: another configuration or environment, and files that are not a run's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.run.configuration import ConfigurationError
from benchmarks.run.folder import RunFolder
from benchmarks.run.loop import RunSettings, run
from benchmarks.run.rows import COST, Row, RowError
from tests.benchmarks.report.report_runs import configuration
from tests.benchmarks.run.small_runs import MEASURED, SPECS


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


def test_two_runs_in_one_folder_are_refused(settings: RunSettings) -> None:
    with (
        RunFolder(settings.out).writer(0),
        pytest.raises((RowError, ConfigurationError), match=r"Another run|has rows but no"),
    ):
        run(settings)
