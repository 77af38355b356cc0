from __future__ import annotations

import json
import lzma
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.run.rows import Row, RowError, RowWriter, read_rows, write_rows

ROWS = [
    Row("a.jpg:1", "centre", "PointingGame", {"pointing_game": 1.0}, 0.25, 0, "cat", 1, 0.5),
    Row("a.jpg:1", "rise:n_masks=8", "Cost", {"queries": 8.0}, 1.5, 8, warnings=["flat"]),
    Row("b\n\u2028ü.jpg", "", "", error="damaged"),
]


def written(path: Path, rows: list[Row]) -> Path:
    with RowWriter(path) as writer:
        for row in rows:
            writer.write(row)
    return path


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    assert read_rows([written(tmp_path / "results-0.jsonl", ROWS)]) == ROWS


def test_a_line_is_plain_json_without_what_is_empty(tmp_path: Path) -> None:
    path = written(tmp_path / "results-0.jsonl", ROWS[:1])
    assert json.loads(path.read_text()) == {
        "sample": "a.jpg:1",
        "method": "centre",
        "measure": "PointingGame",
        "scores": {"pointing_game": 1.0},
        "seconds": 0.25,
        "queries": 0,
        "label": "cat",
        "target": 1,
        "cover": 0.5,
        "difficult": False,
    }


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.xz"])
def test_written_whole(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / name, ROWS)
    assert read_rows([tmp_path / name]) == ROWS
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if name.endswith(".xz"):
        assert lzma.decompress((tmp_path / name).read_bytes()).count(b"\n") == len(ROWS)


@given(cut=st.integers(min_value=0, max_value=400))
@settings(max_examples=30, deadline=None)
def test_what_was_cut_off_anywhere_goes_on(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.mktemp("run") / "results-0.jsonl", ROWS)
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    kept = ROWS[: content.count(b"\n")]
    assert read_rows([path]) == kept
    written(path, ROWS[len(kept) :])
    assert read_rows([path]) == ROWS


def test_the_last_row_of_a_key_counts_in_the_first_place(tmp_path: Path) -> None:
    again = Row(*ROWS[0].key, {"pointing_game": 0.0})
    first = written(tmp_path / "results-0.jsonl", ROWS)
    second = written(tmp_path / "results-1.jsonl", [again])
    assert read_rows([first, second]) == [again, *ROWS[1:]]


def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "results-0.jsonl"):
        with pytest.raises(RowError, match="Another run is writing"):
            RowWriter(tmp_path / "results-0.jsonl").__enter__()
        with RowWriter(tmp_path / "results-1.jsonl"):
            pass
    written(tmp_path / "results-0.jsonl", ROWS)


@pytest.mark.parametrize(
    "line",
    [
        "{]",
        "[]",
        '{"sample": "a"}',
        '{"unknown": 1}',
        '{"sample": ["a"], "method": "b", "measure": "c"}',
        '{"sample": "a", "method": "b", "measure": "c", "scores": {"d": NaN}}',
        '{"sample": "a", "method": "b", "measure": "c", "scores": {"d": 1e999}}',
        '{"sample": "a", "method": "b", "measure": "c", "scores": {"d": "1"}}',
        '{"sample": "a", "method": "b", "measure": "c", "warnings": [[]]}',
        '{"sample": "a", "method": "b", "measure": "c", "curves": {"d": [1], "e": [1, 2]}}',
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    path = written(tmp_path / "results-0.jsonl", ROWS[:2])
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RowError, match=r"results-0\.jsonl, line 3"):
        read_rows([path])


def test_names_that_are_no_unicode_come_back(tmp_path: Path) -> None:
    """As those of files may be, which Python gives as lone surrogates."""
    row = Row("caf\u00e9 \udcff.jpg", "a\nb", "c", error="\ud800")
    path = written(tmp_path / "results-0.jsonl", [row])
    assert read_rows([path]) == [row]
    write_rows(path, [row])
    assert read_rows([path]) == [row]
    path.read_text(encoding="utf-8")  # anybody can read it


def test_a_result_counts_more_than_a_failure(tmp_path: Path) -> None:
    failed = Row(*ROWS[0].key, error="before")
    first = written(tmp_path / "results-0.jsonl", ROWS[:1])
    second = written(tmp_path / "results-1.jsonl", [failed, failed])
    assert read_rows([first, second]) == ROWS[:1]
    assert read_rows([second, first]) == ROWS[:1]
    assert read_rows([second]) == [failed]


def test_a_value_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "results-0.jsonl") as writer, pytest.raises(ValueError, match="JSON"):
        writer.write(Row("a", "b", "c", {"d": float("nan")}))


def test_a_full_disk_keeps_the_rows_before(tmp_path: Path) -> None:
    path = tmp_path / "results-0.jsonl"
    row = ROWS[0]
    size = len(row.to_json()) + 1
    # A process of its own, since the limit on the size of files cannot be raised again.
    code = f"""
import resource
from pathlib import Path
from benchmarks.run.rows import Row, RowError, RowWriter
resource.setrlimit(resource.RLIMIT_FSIZE, ({size * 5 // 2}, resource.RLIM_INFINITY))
row = Row({row.sample!r}, {row.method!r}, {row.measure!r}, {row.scores!r}, {row.seconds!r},
          {row.queries!r}, {row.label!r}, {row.target!r}, {row.cover!r})
with RowWriter(Path({str(path)!r})) as writer:
    writer.write(row)
    writer.write(row)
    try:
        writer.write(row)
    except RowError as error:
        print(error)
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert "cannot be written" in done.stdout
    assert "the same command continues" in done.stdout
    assert path.stat().st_size == 2 * size
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RowError, match="cannot be written"):
        RowWriter(tmp_path / "file" / "results-0.jsonl").__enter__()
