"""Maps of known quality, and what is said of the measures that rank them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.experiments.judge.ranking import LADDERS, MAPS, judged, markdown_of, rankable
from benchmarks.known import truth, truth_is
from benchmarks.measures.registry import MEASURES
from benchmarks.run.folder import RunFolder
from benchmarks.run.rows import COST, Row
from captum_groupcam.methods import METHODS, MethodSpec, offered_methods


def made(**options: float) -> torch.Tensor:
    mask = torch.zeros(2, 1, 40, 40, dtype=torch.bool)
    mask[:, :, 10:22, 12:24] = True
    inputs = torch.stack([torch.full((3, 40, 40), 0.1), torch.full((3, 40, 40), 0.7)])
    with truth_is(mask):
        return truth(torch.nn.Identity(), inputs, 0, **options)


def test_the_truth_and_what_is_made_of_it() -> None:
    plain = made()
    assert plain.sum((1, 2, 3)).tolist() == [144, 144]
    moved = made(shift=0.5)
    assert moved.sum((1, 2, 3)).tolist() == [144, 144]
    overlap = (plain * moved).sum((1, 2, 3))
    assert (overlap < 30).all()
    assert not torch.equal(moved[0], moved[1])  # each in a direction of its own
    assert ((made(shift=0.05) * plain).sum((1, 2, 3)) > 100).all()
    noisy = made(noise=0.25)
    assert ((noisy != plain).float().mean((1, 2, 3)) - 0.25).abs().max() < 0.05
    blurred = made(blur=0.05)
    torch.testing.assert_close(blurred.sum((1, 2, 3)), plain.sum((1, 2, 3)), rtol=1e-3, atol=0)
    assert blurred.amax() < 1.001
    assert blurred[0, 0, 8, 16] > 0
    assert torch.equal(made(noise=0.25), noisy)


def test_the_truth_is_not_known_by_itself() -> None:
    assert "truth" in METHODS
    assert "truth" not in offered_methods()
    method = MethodSpec("truth").method(torch.nn.Identity())
    with pytest.raises(ValueError, match="known only in runs over data with boxes or masks"):
        method(torch.zeros(1, 3, 8, 8), 0)
    with pytest.raises(ValueError, match="shares from 0 to 1"):
        made(shift=1.5)


def test_ladders_are_of_maps_that_there_are_and_none_is_above_itself() -> None:
    for pairs in LADDERS.values():
        assert {name for pair in pairs for name in pair} <= set(MAPS)
        assert all(better != worse for better, worse in pairs)
        assert len(set(pairs)) == len(pairs)
        assert not {(worse, better) for better, worse in pairs} & set(pairs)
    for name in MAPS:
        assert str(MethodSpec.parse(name)) == name


def test_shares_of_pairs_by_hand() -> None:
    place = {name: rank for rank, name in enumerate(reversed(MAPS))}
    rows = []
    for sample in ("a", "b"):
        for name in MAPS:
            # One score knows, one knows the opposite, one says the same of all.
            known = {"truth": 10.0, "truth:shift=0.05": 9.0}.get(name, -float(place[name]))
            scores = {"right": known, "flat": 1.0, "lower": known}
            rows.append(Row(sample, name, "M", scores=scores))
    measures = {
        "M": {"scores": {"right": True, "flat": True, "lower": False}, "category": "faithfulness"}
    }
    found = {one.score: one for one in judged(rows, measures)}
    assert found["flat"].shares["good above bad"].mean == 0.5
    assert found["flat"].verdict == "does not rank"
    for kind in LADDERS:
        pair = found["right"].shares[kind].mean + found["lower"].shares[kind].mean
        assert pair == pytest.approx(1.0)
    pairs = LADDERS["by shift"]
    values = dict.fromkeys(MAPS, rows[0].scores)
    values = {row.method: row.scores["right"] for row in rows if row.sample == "a"}
    expected = sum(values[better] > values[worse] for better, worse in pairs) / len(pairs)
    assert found["right"].shares["by shift"].mean == pytest.approx(expected)
    assert "| `flat` | faithfulness | 0.50 [0.50, 0.50]" in markdown_of(list(found.values()))


def test_failures_are_counted_and_their_pairs_left_out() -> None:
    rows = [Row("a", name, "M", scores={"s": float(name == "truth")}) for name in MAPS]
    rows[1] = Row("a", MAPS[1], "M", error="undefined")
    measures = {"M": {"scores": {"s": True}, "category": "faithfulness"}}
    (one,) = judged(rows, measures)
    assert one.failed == 1
    assert one.shares["good above bad"].n == 1


def test_measures_that_explain_again_judge_no_maps() -> None:
    names = rankable()
    assert "DeletionInsertion" in names
    assert "quantus.ROAD" in names
    assert not {"Agreement", "ADCC", "quantus.MPRT", "quantus.Sufficiency"} & set(names)
    assert set(names) <= set(MEASURES)


def test_the_command_ends_with_a_table_and_goes_on(tmp_path: Path) -> None:
    arguments = ["judge", f"--out={tmp_path}", "--limit=2", "--scenes=20"]
    arguments += ["--measures=PlantedEvidence quantus.Sparseness"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    table = (tmp_path / "table.md").read_text()
    assert "| `planted.pr_auc` | localisation | " in table
    lines = {line.split("`")[1]: line for line in table.splitlines()[2:]}
    assert lines["planted.pr_auc"].endswith("| ranks |")
    assert "| 2 |" in lines["quantus.Sparseness"]
    rows = RunFolder(tmp_path).rows()
    assert {row.method for row in rows} == set(MAPS)
    assert {row.measure for row in rows} == {COST, "PlantedEvidence", "quantus.Sparseness"}
    assert not any(row.error for row in rows)
    again = CliRunner().invoke(app, arguments)
    assert "0 results to do" in " ".join(again.output.split())
    wrong = CliRunner().invoke(app, ["judge", "--variant=object", f"--out={tmp_path}"])
    assert wrong.exit_code == 2
    assert "Unknown variant 'object'" in wrong.output
