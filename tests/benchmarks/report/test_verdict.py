"""The verdict: ranks with intervals, who is behind, and what is undecided."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.report.measured import Measured
from benchmarks.report.verdict import Family, families, verdict_markdown, verdict_tables
from benchmarks.run.rows import COST, Row
from tests.benchmarks.report.report_runs import section


def measured(
    values: dict[str, np.ndarray], score: str = "over_all", higher: bool = True
) -> Measured:
    return measured_together({score: values}, higher)


def measured_together(scores: dict[str, dict[str, np.ndarray]], higher: bool = True) -> Measured:
    """Values of several scores, each a measure of its own."""
    rows = [
        Row(f"{index:03}", method, name, scores={name: float(value)})
        for name, values in scores.items()
        for method, column in values.items()
        for index, value in enumerate(column)
    ]
    configuration = {
        "methods": dict.fromkeys(m for values in scores.values() for m in values),
        "measures": {
            name: {"scores": {name: higher}, "category": _category(name)} for name in scores
        },
    }
    return Measured(section(rows, configuration))


def _category(score: str) -> str:
    return {"queries": "cost", "grid.roc_auc": "localisation"}.get(score, "faithfulness")


def drawn(n: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=n)  # what makes a sample hard for all
    return {
        "good": hard + 1.0 + 0.1 * rng.normal(size=n),
        "as good": hard + 1.0 + 0.1 * rng.normal(size=n),
        "worse": hard + 0.5 + 0.1 * rng.normal(size=n),
        "noise": hard + 3 * rng.normal(size=n),
    }


@pytest.mark.parametrize("higher", [True, False])
def test_the_top_those_behind_and_ranks(higher: bool) -> None:
    values = {method: column if higher else -column for method, column in drawn().items()}
    (family,) = families(measured(values, higher=higher), list(values))
    assert (family.name, family.score.name, family.n) == ("faithfulness", "over_all", 60)
    places = family.standings
    assert {m: p.status for m, p in places.items() if m != "noise"} == {
        "good": "top",
        "as good": "top",
        "worse": "behind",
    }
    assert sorted(places[m].rank for m in ("good", "as good")) == [1, 2]
    assert (places["good"].low, places["good"].high) == (1, 2)
    assert places["worse"].low == 3
    assert str(places["worse"]).startswith("▼ 3 [3")


def test_ranks_are_those_of_a_loop_over_resamples() -> None:
    from captum_groupcam.metrics.bootstrap import resampling_counts

    values = drawn(20)
    (family,) = families(measured(values), list(values))
    ranks = []
    for counts in resampling_counts(20, 4000).numpy():
        means = {method: (counts * column).sum() / 20 for method, column in values.items()}
        ranks.append(1 + sum(means[other] > means["noise"] for other in values))
    low, high = sorted(ranks)[int(0.025 * 3999)], sorted(ranks)[int(0.975 * 3999)]
    assert (family.standings["noise"].low, family.standings["noise"].high) == (low, high)


def test_few_samples_leave_it_undecided_and_too_few_are_not_ranked() -> None:
    values = drawn()
    values["costly"] = values["good"][:20]
    (family,) = families(measured(values), list(values))
    assert family.unranked == {"costly": 20}
    assert "costly" not in family.standings
    assert "n = 20 only" in verdict_markdown({"t": [family]})
    few = {method: column[:5] for method, column in drawn().items()}
    (family,) = families(measured(few), list(few))
    assert family.standings["worse"].status == "undecided"


def test_equal_methods_share_a_rank() -> None:
    column = np.arange(10.0)
    (family,) = families(measured({"a": column, "b": column, "c": column - 1}), ["a", "b", "c"])
    assert [family.standings[m].rank for m in "abc"] == [1, 1, 3]
    assert [family.standings[m].status for m in "ab"] == ["top", "top"]


def test_one_line_a_method_the_best_first() -> None:
    values = drawn()
    found = families(measured(values), list(values))
    (table,) = verdict_tables({"network on data": found})
    assert list(table.lines)[:2] in (["good", "as good"], ["as good", "good"])
    lines = verdict_markdown({"network on data": found}).splitlines()
    assert lines[0] == "# network on data"
    assert "faithfulness: over_all, n = 60" in lines[2]
    assert sum(line.startswith("| ") for line in lines) == 2 + len(values)


def test_cost_is_decided_by_queries_and_a_single_method_by_nothing() -> None:
    queries = {"cheap": np.ones(8), "dear": np.full(8, 34.0)}
    (family,) = families(measured(queries, "queries", higher=False), list(queries))
    assert family.standings["dear"].status == "behind"
    assert "| dear | 34 |" in verdict_markdown({"t": [family]})
    assert families(measured({"only": np.ones(8)}), ["only"]) == []
    assert COST == "Cost"


def test_several_sections_have_one_verdict_before_their_own() -> None:
    values = drawn()

    def verdict(queries: float, *methods: str) -> list[Family]:
        costs = measured({m: np.full(3, queries) for m in methods}, "queries", higher=False)
        return [*families(measured(values), list(values)), *families(costs, methods)]

    verdicts = {"one": verdict(34, *values), "two": verdict(26, *values, "a")}
    first, *each = verdict_tables(verdicts)
    assert [one.title for one in each] == ["one", "two"]
    assert (first.title, first.heads) == ("All together", ["faithfulness (a b)", "cost"])
    assert first.notes == ["a: one (over_all, n = 60)", "b: two (over_all, n = 60)"]
    page = verdict_markdown(verdicts)
    assert page.index("- a: one") < page.index("| method | faithfulness (a b)")
    assert list(first.lines) == list(each[0].lines)  # without the one that has a cost alone
    for method, (standing, cost) in first.lines.items():
        alone = verdicts["one"][0].standings[method]
        assert standing.text.split() == [f"{alone.sign}{alone.rank}"] * 2
        assert (standing.status, standing.rank) == (alone.status, alone.rank)
        assert cost.text == "34"
    assert [one.title for one in verdict_tables({"one": verdicts["one"]})] == ["one"]


def test_a_method_has_its_place_in_each_run_that_measured_it() -> None:
    values = drawn()
    part = {method: values[method] for method in ("good", "worse")}
    both = {
        "one": families(measured(values), list(values)),
        "two": families(measured(part, "grid.roc_auc"), list(part)),
        "three": families(measured(part), list(part)),
    }
    table = verdict_tables(both)[0]
    assert table.heads == ["faithfulness (a c)", "localisation, truth known (b)"]
    assert list(table.lines) == ["good", "worse"]  # the others stand in one run alone
    assert [cell.text for cell in table.lines["worse"]][1] == "▼2"
    assert table.lines["worse"][0].text.startswith("▼")
    assert table.lines["worse"][0].text.endswith("\N{NO-BREAK SPACE}▼2")


def test_of_deciding_scores_the_one_counts_that_most_methods_have() -> None:
    values = drawn()
    few = dict(list(values.items())[:2])
    scores = {"over_all": few, "official.over_all": values}
    (family,) = families(measured_together(scores), list(values))
    assert family.score.name == "official.over_all"
    (family,) = families(measured_together({**scores, "over_all": values}), list(values))
    assert family.score.name == "over_all"
