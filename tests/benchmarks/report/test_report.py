"""The tables of a report, computed again from the rows, and runs put together."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from benchmarks.report import write_report
from benchmarks.report.files import decimals, number
from benchmarks.report.tables import holm, paired_p
from benchmarks.run.configuration import ConfigurationError
from benchmarks.run.rows import COST, Row, RowError
from tests.benchmarks.report.report_runs import configuration, rows_beside, rows_of, write_run

METHODS = ["grad_cam", "group_cam", "rise:n_masks=8", "centre"]
SAMPLES = [f"{index:02}.jpg" for index in range(24)]
HEAVY = "rise:n_masks=8"


def lines_of(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def line(out: Path, **wanted: str) -> dict[str, str]:
    (found,) = (one for one in lines_of(out) if wanted.items() <= one.items())
    return found


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """A heavy method has half of the samples."""
    return [row for row in rows_of(SAMPLES, METHODS) if row.method != HEAVY or row.sample < "12"]


@pytest.fixture(scope="module")
def out(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report")
    write_run(path / "run", configuration(METHODS), rows)
    write_report([path / "run"], path / "out")
    return path / "out"


def test_means_and_differences_are_those_of_the_rows(out: Path) -> None:
    values: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    about: dict[str, dict[str, Any]] = {}
    for row in rows_beside(out):
        assert row["section"] == "squeezenet1_1 on photographs"
        about[row["sample"]] = row
        for name, value in row["scores"].items():
            values[row["method"], name][row["sample"]] = value
    subsets = {
        "all samples": set(SAMPLES),
        "samples that all methods have": set(SAMPLES[:12]),
        "small objects (cover < 0.33)": {s for s in SAMPLES if about[s]["cover"] < 0.33},
        "difficult subset": {s for s in SAMPLES if about[s]["difficult"]},
    }
    for name in list(subsets)[2:]:
        subsets[f"{name}, samples that all methods have"] = subsets[name] & set(SAMPLES[:12])

    def unit_values(method: str, score: str, samples: set[str]) -> dict[str, float]:
        name, per_class, _ = score.partition(", mean of classes")
        found = {s: v for s, v in values[method, name].items() if s in samples}
        if not per_class:
            return found
        labels = {about[s]["label"] for s in found}
        return {
            label: fmean(v for s, v in found.items() if about[s]["label"] == label)
            for label in labels
        }

    seen = set()
    for one in lines_of(out):
        seen.add((one["subset"], one["method"], one["score"]))
        samples = subsets[one["subset"]]
        own = unit_values(one["method"], one["score"], samples)
        assert int(one["n"]) == len(own)
        assert float(one["mean"]) == pytest.approx(fmean(own.values()))
        assert one["reference"] == "group_cam"
        if one["method"] == "group_cam":
            assert one["difference"] == ""
            continue
        name = one["score"].partition(",")[0]
        both = values[one["method"], name].keys() & values["group_cam", name].keys() & samples
        first = unit_values(one["method"], one["score"], both)
        second = unit_values("group_cam", one["score"], both)
        differences = np.array([first[unit] - second[unit] for unit in first])
        assert int(one["n_paired"]) == len(differences)
        assert float(one["difference"]) == pytest.approx(differences.mean())
        if len(differences) == 24:
            low, high = naive_interval(differences)
            assert float(one["difference_low"]) == pytest.approx(low, abs=high / 20 - low / 20)
            assert float(one["difference_high"]) == pytest.approx(high, abs=high / 20 - low / 20)
    everywhere = [("all samples", m, s) for m in METHODS for s in ("over_all", "queries")]
    small = [("small objects (cover < 0.33)", m, "pointing_game") for m in METHODS]
    assert seen.issuperset(everywhere + small)
    assert ("all samples", "centre", "pointing_game, mean of classes") in seen


def naive_interval(values: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(7)
    means = sorted(rng.choice(values, len(values)).mean() for _ in range(4000))
    return float(means[100]), float(means[3899])


def test_other_samples_are_said_and_never_ranked(out: Path) -> None:
    page, text = (out / "index.html").read_text(), (out / "table.md").read_text()
    assert "The methods do not have the same samples" in page
    first, second = text.split("## ")[1:3]
    assert first.startswith("Faithfulness: all samples")
    assert "(n = 12)" in first
    assert "**" not in first
    assert second.startswith("Faithfulness: samples that all methods have")
    assert "n = 12 samples where nothing else is said" in second
    assert second.count("**") == 2 * 3


def test_two_halves_are_the_whole(rows: list[Row], out: Path, tmp_path: Path) -> None:
    halves = [
        write_run(
            tmp_path / str(half),
            configuration(METHODS, environment={"torch": f"2.{half}", "device": "cpu"}),
            [row for row in rows if SAMPLES.index(row.sample) % 2 == half],
        )
        for half in (0, 1)
    ]
    write_report(halves, tmp_path / "out")
    for name in ("results.parquet", "table.csv", "table.md"):
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes()
    assert "2.1" in (tmp_path / "out" / "index.html").read_text()


def test_methods_of_several_runs_stand_together(rows: list[Row], out: Path, tmp_path: Path) -> None:
    folders = [
        write_run(
            tmp_path / str(place),
            configuration(methods),
            [row for row in rows if row.method in methods],
        )
        for place, methods in enumerate((METHODS[:2], METHODS[2:]))
    ]
    write_report(folders, tmp_path / "out")
    assert (tmp_path / "out" / "table.csv").read_bytes() == (out / "table.csv").read_bytes()


def test_another_reference(rows: list[Row], out: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", configuration(METHODS), rows)
    write_report([folder], tmp_path / "out", "grad_cam")
    lines = {(one["method"], one["score"]): one for one in lines_of(tmp_path / "out")}
    before = {(one["method"], one["score"]): one for one in lines_of(out)}
    assert {one["reference"] for one in lines.values()} == {"grad_cam"}
    was = before["grad_cam", "over_all"]
    assert was["reference"] == "group_cam"
    now = lines["group_cam", "over_all"]
    assert float(now["difference"]) == pytest.approx(-float(was["difference"]))
    with pytest.raises(ValueError, match=r"No run has the method 'none': expected one of \['"):
        write_report([folder], tmp_path / "out", "none")


def test_a_run_of_chosen_samples_goes_with_the_whole(rows: list[Row], tmp_path: Path) -> None:
    whole = write_run(
        tmp_path / "whole",
        configuration(METHODS[:2]),
        [row for row in rows if row.method in METHODS[:2]],
    )
    changes = {"chosen_samples": "1::2", "n_samples": len(SAMPLES) // 2, "samples": "other"}
    part = write_run(
        tmp_path / "part",
        configuration(METHODS[2:], **changes),
        [row for row in rows if row.method in METHODS[2:] and SAMPLES.index(row.sample) % 2],
    )
    page = write_report([part, whole], tmp_path / "out")
    lines = lines_of(page.parent)
    assert len({one["section"] for one in lines}) == 1
    counts = {
        one["method"]: int(one["n"])
        for one in lines
        if (one["score"], one["subset"]) == ("over_all", "all samples")
    }
    assert counts[METHODS[2]] < counts[METHODS[0]]
    # Without the whole it stands alone, and so it does beside another network's.
    other = write_run(tmp_path / "other", configuration(METHODS[:2], model="other"), rows[:1])
    page = write_report([part, other], tmp_path / "apart")
    assert len({one["section"] for one in lines_of(page.parent)}) == 2


def test_other_configurations_are_other_sections(tmp_path: Path) -> None:
    rows = rows_of(SAMPLES[:3], METHODS[:2], ["PointingGame"])
    folders = [
        write_run(tmp_path / str(place), configuration(METHODS[:2], **changes), rows)
        for place, changes in enumerate(({}, {"seed": 1}, {"model": "efficientnet_lite0"}))
    ]
    page = write_report(folders, tmp_path / "out")
    titles = [
        "squeezenet1_1 on photographs, seed 0",
        "squeezenet1_1 on photographs, seed 1",
        "efficientnet_lite0 on photographs",
    ]
    assert list(dict.fromkeys(one["section"] for one in lines_of(page.parent))) == titles
    for title in titles:
        assert f"<h2>{title}</h2>" in page.read_text()


ROW = Row("a.jpg", "grad_cam", "PointingGame", {"pointing_game": 1.0}, digest="0")
COSTS = Row("a.jpg", "grad_cam", COST, {"seconds": 1.0, "queries": 1.0, "forward_passes": 9.0})


def merged(path: Path, *runs: Row) -> list[dict[str, Any]]:
    """What runs of a row each say together."""
    folders = [
        write_run(path / str(index), configuration(["grad_cam"]), [row])
        for index, row in enumerate(runs)
    ]
    return rows_beside(write_report(folders, path / "out").parent)


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (ROW, {"scores": {"pointing_game": 0.0}}, r"'a\.jpg'.*'grad_cam'.*'PointingGame'"),
        (ROW, {"scores": {}}, "contradict"),
        (ROW, {"scores": {"pointing_game": 1.0, "more": 1.0}}, "contradict"),
        (ROW, {"digest": "1"}, r"annotation of 'a\.jpg' is not the same"),
        (COSTS, {"scores": {**COSTS.scores, "queries": 2.0}}, "contradict"),
    ],
)
def test_contradictions_are_errors(
    row: Row, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RowError, match=message):
        merged(tmp_path, row, replace(row, **changes))


@pytest.mark.parametrize(
    ("row", "scores"),
    [
        (ROW, {"pointing_game": 1.0 + 1e-9}),
        (COSTS, {"seconds": 2.0, "queries": 1.0, "forward_passes": 8.0}),
    ],
)
def test_the_first_of_results_that_agree_counts(
    row: Row, scores: dict[str, float], tmp_path: Path
) -> None:
    (found,) = merged(tmp_path, row, replace(row, scores=scores))
    assert found["scores"] == row.scores


def test_a_result_counts_more_than_a_failure(tmp_path: Path) -> None:
    failed = replace(ROW, scores={}, error="MemoryError: ")
    unloaded = Row("a.jpg", "", "", error="damaged")
    for index, runs in enumerate([(failed, ROW), (ROW, failed), (unloaded, ROW)]):
        (found,) = merged(tmp_path / str(index), *runs)
        assert (found["method"], found["scores"], found["error"]) == ("grad_cam", ROW.scores, None)
    (found,) = merged(tmp_path / "none", unloaded, replace(unloaded, error="again"))
    assert found["error"] == "damaged"


def test_what_cannot_be_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one folder"):
        write_report([], tmp_path)
    with pytest.raises(ConfigurationError, match="not the configuration of a run"):
        write_report([tmp_path / "nothing"], tmp_path / "out")
    empty = write_run(tmp_path / "empty", configuration(METHODS), [])
    with pytest.raises(ValueError, match="no rows yet"):
        write_report([empty], tmp_path / "out")
    setup = configuration(METHODS)
    setup["measures"]["PointingGame"]["parameters"]["tolerance"] = 0.0
    rows = rows_of(SAMPLES[:2], METHODS)
    other = write_run(tmp_path / "other", setup, rows)
    with pytest.raises(ConfigurationError, match="other measures called 'PointingGame'"):
        write_report([write_run(tmp_path / "run", configuration(METHODS), rows), other], tmp_path)


def test_failures_are_counted(tmp_path: Path) -> None:
    rows = rows_of(SAMPLES[:8], METHODS)
    broken = [
        replace(row, scores={}, curves={}, error="ValueError: flat map")
        for row in rows
        if (row.method == "centre" and row.measure == "DeletionInsertion")
        or (row.method == "grad_cam" and row.measure == "PointingGame" and row.sample < "03")
    ]
    rows = list({row.key: row for row in [*rows, *broken]}.values())
    rows.append(Row("lost.jpg", "", "", error="ImageError: lost.jpg is damaged"))
    rows[0] = replace(rows[0], warnings=["empty map", "slow"])
    out = write_report([write_run(tmp_path, configuration(METHODS), rows)], tmp_path / "out").parent
    all_failed = line(out, subset="all samples", method="centre", score="over_all")
    assert (all_failed["n"], all_failed["failed"], all_failed["mean"]) == ("0", "8", "")
    some_failed = line(out, subset="all samples", method="grad_cam", score="pointing_game")
    assert (some_failed["n"], some_failed["failed"], some_failed["n_paired"]) == ("5", "3", "5")
    page = (out / "index.html").read_text()
    assert "<tr><td>8</td><td>centre</td><td>DeletionInsertion</td>" in page
    assert "<tr><td>3</td><td>grad_cam</td><td>PointingGame</td>" in page
    assert "lost.jpg is damaged" in page
    assert "9 of 1000 samples, 1 of which could not be loaded" in page
    assert "all 8 failed" in page
    assert ">empty map<" in page
    assert "all 8 failed" in (out / "table.md").read_text()


def test_significance_is_marked(tmp_path: Path) -> None:
    methods = ["group_cam", "better", "alike", "rarely"]
    rng = np.random.default_rng(0)
    setup = configuration(["group_cam"])
    setup["methods"] = dict.fromkeys(methods, setup["methods"]["group_cam"])
    rows = []
    for place, sample in enumerate(SAMPLES):
        base = rng.normal(0.5, 0.2)
        noise = rng.normal(0, 0.02, 2)
        values = [base, base + 0.1 + noise[0], base + noise[1] / 10, base + (place < 5)]
        for method, value in zip(methods, values, strict=True):
            scores = {"deletion": 0.1, "insertion": value, "over_all": -value}
            rows.append(Row(sample, method, "DeletionInsertion", scores))
    out = write_report([write_run(tmp_path, setup, rows)], tmp_path / "out").parent

    def marked(method: str, score: str) -> tuple[str, str]:
        found = line(out, method=method, score=score)
        return found["significant"], found["significant_corrected"]

    assert marked("better", "insertion") == ("True", "True")
    assert marked("alike", "insertion") == ("False", "False")
    # Its interval excludes 0, but five of one sign come by chance in one of sixteen cases.
    assert float(line(out, method="rarely", score="insertion")["difference_low"]) > 0
    assert marked("rarely", "insertion") == ("False", "False")
    text = (out / "table.md").read_text()
    (better,) = (one for one in text.splitlines() if one.startswith("| better | 0.000"))
    assert better.count("▲▲") == 1
    assert better.count("▼▼") == 1


def test_holm_on_a_worked_example() -> None:
    # 0.005 <= 0.05 / 4 and 0.01 <= 0.05 / 3, but 0.03 > 0.05 / 2: here it ends.
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([]) == []
    assert holm([0.04, 0.049]) == [False, False]
    assert holm([0.02, 0.049]) == [True, True]


@given(
    st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=3, max_size=20).filter(
        lambda values: np.std(values) > 1e-3
    )
)
@settings(max_examples=30, deadline=None)
def test_p_values_are_those_of_the_paired_t_test(values: list[float]) -> None:
    expected = ttest_rel(values, np.zeros(len(values))).pvalue
    assert paired_p(values) == pytest.approx(expected, rel=1e-6)


def test_p_values_without_spread() -> None:
    assert paired_p([0.0, 0.0, 0.0]) == 1
    assert paired_p([0.1]) == 1
    assert paired_p([0.1] * 7) == pytest.approx(2 / 2**7)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.1234], 3), ([1.0, 0.2], 3), ([12.3], 1), ([4000.0, 1.0], 0), ([0.0], 3), ([], 3)],
)
def test_decimals(values: list[float], expected: int) -> None:
    assert decimals(values) == expected


def test_numbers_have_a_minus_sign_and_no_negative_zero() -> None:
    assert number(-0.25, 2) == "\N{MINUS SIGN}0.25"
    assert number(-0.0001, 2, signed=True) == "0.00"
    assert number(0.5, 1, signed=True) == "+0.5"


def test_studies_have_their_own_tables(tmp_path: Path) -> None:
    variants = [f"group_cam:n_groups={n}" for n in (1, 4, 128)]
    study = [*variants[:2], "group_cam", variants[2]]
    setup = configuration([*METHODS, *variants], studies={"groups": study})
    rows = rows_of(SAMPLES, METHODS) + rows_of(SAMPLES[:5], variants)
    out = write_report([write_run(tmp_path, setup, rows)], tmp_path / "out").parent
    methods = defaultdict(set)
    sizes = defaultdict(set)
    for one in lines_of(out):
        methods[one["subset"]].add(one["method"])
        if one["unit"] == "samples":
            sizes[one["subset"]].add(one["n"])
    assert methods["study groups"] == set(study)
    assert sizes["study groups"] == {"5"}
    assert methods["all samples"] == set(METHODS)
    assert sizes["all samples"] == {"24"}
    assert "<code>n_groups</code> is varied" in (out / "index.html").read_text()
