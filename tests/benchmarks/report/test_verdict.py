"""The verdict: ranks with intervals, who is behind, and what is undecided."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.report.measured import Measured
from benchmarks.report.verdict import Family, families, methods_of, together, verdict_markdown
from benchmarks.run.rows import COST, Row
from tests.benchmarks.report.report_runs import section


def measured(values: dict[str, np.ndarray], score: str = "over_all", higher: bool = True):
    category = "cost" if score == "queries" else "faithfulness"
    rows = [
        Row(f"{index:03}", method, "M", scores={score: float(value)})
        for method, column in values.items()
        for index, value in enumerate(column)
    ]
    configuration = {
        "methods": dict.fromkeys(values),
        "measures": {"M": {"scores": {score: higher}, "category": category}},
    }
    return Measured(section(rows, configuration))


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
    assert methods_of(found)[:2] in (["good", "as good"], ["as good", "good"])
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
    found = together(verdicts)
    assert list(found) == ["All together", "one", "two"]
    first = found["All together"]
    assert [one.name for one in first] == ["faithfulness, one", "faithfulness, two", "cost"]
    assert [one.standings for one in first[:2]] == [v[0].standings for v in verdicts.values()]
    assert (first[2].means["good"], first[2].means["a"]) == (34, 26)
    assert together({"one": verdicts["one"]}) == {"one": verdicts["one"]}
