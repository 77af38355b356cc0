from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from captum_groupcam.apps.explorer._files import remove_abandoned, remove_old, temporary_folder

#: Holds a folder with a photo in it until it is ended from outside.
HOLDS = """
import sys
from captum_groupcam.apps.explorer._files import temporary_folder

with temporary_folder() as folder:
    (folder / "photo.png").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def hold(place: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(place)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_nothing_is_left_at_the_end(place: Path) -> None:
    with temporary_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "pages" / "a").mkdir(parents=True)
    assert list(place.iterdir()) == []
    with pytest.raises(EOFError), temporary_folder():
        raise EOFError
    assert list(place.iterdir()) == []


def test_the_next_removes_what_a_killed_one_left(place: Path) -> None:
    process, folder = hold(place)
    with process:
        with temporary_folder():
            assert (folder / "photo.png").is_file(), "Its process lives."
        process.kill()
        process.wait()
        assert (folder / "photo.png").is_file()
        with temporary_folder() as mine:
            assert not folder.exists()
            assert mine.is_dir()
    assert list(place.iterdir()) == []


def test_what_is_somebody_elses_stays(place: Path) -> None:
    precious = place / "precious"
    precious.mkdir()
    (place / "captum_groupcam-explorer-0").symlink_to(precious)
    (place / "captum_groupcam-explorer-0.lock").touch()
    (place / "captum_groupcam-explorer-1.lock").symlink_to(precious / "file")
    (precious / "file").write_text("text")
    (place / "other.lock").touch()
    remove_abandoned()
    assert (precious / "file").read_text() == "text"
    assert (place / "other.lock").exists()


def test_what_is_old_goes(place: Path) -> None:
    long_ago = time.time() - 3600
    for name in ("own", "old", "new"):
        (place / name).mkdir()
        (place / name / "file").touch()
    (place / "old.tmp").touch()
    for name in ("own", "old", "old.tmp"):
        os.utime(place / name, (long_ago, long_ago))
    remove_old(place, keep={place / "own"})
    assert sorted(path.name for path in place.iterdir()) == ["new", "own"]
