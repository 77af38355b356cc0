from __future__ import annotations

import json
import lzma
import resource
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.run.rows import Row, RowError, RowWriter
from benchmarks.run.table import RowTable, read_rows

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


def test_compressed_lines_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "results.jsonl", ROWS)
    compressed = tmp_path / "results.jsonl.xz"
    compressed.write_bytes(lzma.compress(path.read_bytes() + b'{"sample": "half'))
    assert read_rows([compressed]) == ROWS


def put_together(path: Path, rows: list[Row]) -> Path:
    table = RowTable()
    table.read([written(path.parent / "parts" / "results-0.jsonl", rows)])
    table.write(path)
    return path


def test_a_whole_file_has_all_of_its_rows_and_each_axis_once(tmp_path: Path) -> None:
    axis, curve = [0.0, 0.12345, 1.0], [0.3, 1e-7, 0.25]
    rows = [
        *ROWS,
        Row("c", "m", "D", {"d": 0.1, "D": 1 / 3}, curves={"fraction": axis, "curve": curve}),
        Row("d", "m", "D", {"d": 0.2}, digest="01", curves={"fraction": axis, "curve": axis}),
        Row("e", "m", "S", {"s": 0.2}, curves={"ssim": [0.5], "spearman": [-0.5]}),
        Row("f", "m", "D", curves={"fraction": [0.0, 1.0], "curve": [1.0, 0.0]}, difficult=True),
    ]
    path = put_together(tmp_path / "results.parquet", rows)
    assert {file.name for file in tmp_path.iterdir()} == {"parts", "results.parquet"}
    assert read_rows([path]) == rows
    # As another reader sees it.
    kept = duckdb.sql(f"SELECT decode(value) FROM parquet_kv_metadata('{path}')").fetchall()
    assert [json.loads(text) for (text,) in kept] == [[axis, [0.0, 1.0]]]
    numbers = duckdb.sql(f"SELECT axis FROM '{path}' WHERE axis IS NOT NULL").fetchall()
    assert numbers == [(0,), (0,), (1,)]
    # More rows, and the same again.
    late = Row("g", "m", "S", {"s": 0.5})
    more = written(tmp_path / "results-1.jsonl", [rows[0], late])
    assert read_rows([path, more]) == [*rows, late]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"half"])
def test_a_whole_file_that_is_damaged_is_named(tmp_path: Path, content: bytes) -> None:
    path = put_together(tmp_path / "results.parquet", ROWS)
    path.write_bytes(path.read_bytes()[: len(content) * 50] + content)
    with pytest.raises(RowError, match=r"results\.parquet cannot be read"):
        read_rows([path])


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    duckdb.sql("SELECT 1 AS sample").write_parquet(str(path))
    with pytest.raises(RowError, match="cannot be read: they are not rows of a run"):
        read_rows([path])


@pytest.mark.parametrize("name", ["a[1]*?.jsonl", "it's.jsonl", "model=a/b=1.jsonl"])
def test_files_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert read_rows([written(path, ROWS)]) == ROWS
    whole = put_together(path.with_suffix(".parquet"), ROWS)
    assert read_rows([whole]) == ROWS


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
        '{"sample": "a", "method": "b", "measure": "c", "scores": {"d": -Infinity, "e": Infinity}}',
        '{"sample": "a", "method": "b", "measure": "c", "warnings": [[]]}',
        '{"sample": "a", "method": "b", "measure": "c", "queries": 1.0}',
        '{"sample": "a", "method": "b", "measure": "c", "target": 9223372036854775808}',
        '{"sample": "a", "method": "b", "measure": "c", "curves": {"d": [0, NaN]}}',
        '{"sample": "a", "method": "b", "measure": "c", "curves": {"d": ["1"]}}',
        '{"sample": "a", "method": "b", "measure": "c", "curves": {"fraction": [], "d": [1]}}',
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
    assert read_rows([put_together(tmp_path / "results.parquet", [row])]) == [row]
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
