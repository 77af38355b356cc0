"""The attacks, with a few tries of each kind: nothing happens that must not."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.experiments.attack import command, kinds
from benchmarks.experiments.attack.attacks import Attack, NotTried, Outcome
from benchmarks.experiments.attack.registry import ATTACKS

RESULTS = Path(__file__).parents[3] / "benchmarks/results"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_an_attack_is_withstood(attack: Attack, tmp_path: Path) -> None:
    try:
        outcome = attack.run(tmp_path, True)
    except NotTried as missing:
        pytest.skip(str(missing))
    assert outcome.withstood, "\n".join(outcome.details)
    assert outcome.faults
    assert not outcome.details


def test_there_are_enough_kinds() -> None:
    spoils = (kinds.LOADERS, kinds.LABELS, kinds.IMAGES, kinds.BOXES, kinds.MASKS, kinds.ODD)
    assert sum(map(len, spoils)) >= 55


@pytest.mark.parametrize("faults", [0, 2])
def test_the_table_counts_what_must_not_happen(
    faults: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, list[Path]]] = []

    def run(folder: Path, small: bool) -> Outcome:
        seen.append((small, list(folder.iterdir())))
        return Outcome(7, {"rows lost": faults, "rows doubled": 0}, ["a \x1b row"] * faults)

    attacks = (Attack("kills", "runs", run), Attack("noise", "files", run))
    monkeypatch.setattr(command, "ATTACKS", attacks)
    monkeypatch.setattr(command, "_THEMES", ("runs", "files"))
    done = CliRunner().invoke(app, ["attack", "runs", "--small"])
    lines = done.output.splitlines()
    assert f"| runs | kills | 7 | rows lost | {faults} |" in lines
    assert "| runs | kills | 7 | rows doubled | 0 |" in lines
    assert "files" not in done.output
    assert done.output.count(r"kills: a \x1b row") == faults
    assert done.exit_code == (1 if faults else 0)
    assert seen == [(True, [])]


def test_the_published_table_has_every_attack_and_no_damage() -> None:
    head, _, *lines = (RESULTS / "attack.txt").read_text(encoding="utf-8").splitlines()
    assert head == "| theme | what is done | tries | what must not happen | times |"
    rows = [line.strip("| ").split(" | ") for line in lines]
    assert {(theme, name) for theme, name, *_ in rows} == {(a.theme, a.name) for a in ATTACKS}
    assert all(int(tries) > 0 and times == "0" for _, _, tries, _, times in rows)


def test_an_unknown_theme() -> None:
    done = CliRunner().invoke(app, ["attack", "weather"])
    assert done.exit_code == 2
    assert "Unknown: weather; known are runs, folders" in " ".join(done.output.split())
