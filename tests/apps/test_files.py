"""`captum-groupcam explain`: the files that it reads, and those that it writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from captum_groupcam.apps._files import file_part, output_names
from captum_groupcam.methods import MethodSpec
from tests.apps.command_line import explain


def test_a_file_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    result = explain(tmp_path / "missing.png")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"{tmp_path / 'missing.png'}: no such file or folder"]


def test_a_damaged_image_does_not_stop_the_others(
    cat_file: Path, damaged_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (tmp_path / "empty").mkdir()
    shutil.copy(cat_file, folder / "z.png")
    out = tmp_path / "out"
    result = explain(
        damaged_file, tmp_path / "missing.png", tmp_path / "empty", folder, cat_file, "--out", out
    )
    assert result.exit_code == 1
    assert f"{damaged_file}: cannot be read as an image" in result.stderr
    assert "missing.png: no such file" in result.stderr
    assert "empty: no image in this folder" in result.stderr
    assert "3 failures, 3 files found" in result.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "cat_group_cam_n_groups=4.png",
        "z_group_cam_n_groups=4.png",
    ]


def test_an_unwritable_folder_is_reported_before_anything_is_computed(cat_file: Path) -> None:
    result = explain(cat_file, "--out", cat_file / "out")
    assert result.exit_code == 2
    assert f"Nothing can be written to --out {cat_file / 'out'}: Not a directory" in result.stderr
    assert "%" not in result.output


def test_methods_with_other_options_have_other_files() -> None:
    specs = [
        *("layer_cam", "layer_cam:smooth=flips", "layer_cam:layer=smooth=flips"),
        *("layer_cam:layers=(a.b,c),merge=product", "layer_cam:layers=(a_b,c),merge=product"),
        *("layer_cam:layers=(a/b,c)", "layer_cam:layers=(a_b,c)", "layer_cam:layers=('a:b',c)"),
        *(f"layer_cam:layer={'a' * 300}", f"layer_cam:layer={'a' * 301}"),
    ]
    parts = [file_part(MethodSpec.parse(text)) for text in specs]
    assert parts[:2] == ["layer_cam", "layer_cam_smooth=flips"]
    assert parts == [file_part(MethodSpec.parse(text)) for text in specs]
    assert len(set(parts)) == len(specs)
    assert not any(set("<>:\"/\\|?*'") & set(part) for part in parts)
    (name,) = output_names([Path(f"{'x' * 250}.png")], parts[-1], Path("out"))
    assert len(name) <= 255


def test_no_output_takes_the_place_of_another_or_of_an_input(tmp_path: Path) -> None:
    files = [Path("a/cat.png"), Path("b/cat.jpg"), Path("b/CAT.png"), Path("c/cat_m_2.png")]
    names = output_names(files, "m", tmp_path)
    assert len({name.casefold() for name in names}) == 4
    assert names[0] == "cat_m.png"

    inputs = [tmp_path / "cat.jpg", tmp_path / "cat_m.png"]
    names = output_names(inputs, "m", tmp_path)
    assert not {tmp_path / name for name in names} & set(inputs)


def test_brackets_in_a_name_are_no_markup(cat_file: Path, tmp_path: Path) -> None:
    path = cat_file.rename(tmp_path / "[bold]cat.png")
    result = explain(path, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    first, *_, last = filter(None, result.stdout.splitlines())
    assert first == str(path)
    assert last == str(tmp_path / "out" / "[bold]cat_group_cam_n_groups=4.png")


#: Names that a terminal would obey, cannot show, or that are as long as can be.
ODD = [
    "\x1b[2J\x1b[31mred.png",
    "two\nlines.png",
    "bell\a.png",
    "\u202egnp.exe.png",
    os.fsdecode(b"not utf-8 \xff\xfe.png"),
    "cafe\u0301 \u6f22\u5b57 \U0001f408.png",
    f"{'x' * 251}.png",
    "$a_b$.png",
    ":smile: [bold]x[bold].png",
    "-- out.png",
]


def test_odd_names_do_not_end_a_batch(cat_file: Path, tmp_path: Path) -> None:
    """In a terminal of ASCII, beside a path that no file system takes."""
    folder, out = tmp_path / "odd", tmp_path / "out"
    folder.mkdir()
    for name in ODD:
        shutil.copy(cat_file, folder / name)
    (folder / "broken\x1b[31m.jpg").write_bytes(b"no picture")
    arguments = ["-m", "captum_groupcam", "explain", folder, tmp_path / ("y" * 300), cat_file]
    done = subprocess.run(
        [sys.executable, *map(os.fspath, arguments), "--method=grad_cam", f"--out={out}"],
        capture_output=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    printed = (done.stdout + done.stderr).decode("ascii")
    assert "Traceback" not in printed
    assert all(character.isprintable() or character == "\n" for character in printed)
    assert r"\x1b[2J\x1b[31mred.png" in printed
    assert r"two\nlines.png" in printed
    assert "2 failures, 12 files found" in printed
    assert len(list(out.iterdir())) == len(ODD) + 1
    assert all(file.name.endswith(".png") for file in out.iterdir())


def test_a_folder_without_permission_does_not_end_a_batch(cat_file: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0)
    try:
        if os.access(locked, os.R_OK):
            pytest.skip("this user may read anything")
        result = explain(locked, cat_file, "--out", tmp_path / "out")
    finally:
        locked.chmod(0o700)
    assert result.exit_code == 1
    assert f"{locked}: cannot be searched" in result.stderr
    assert (tmp_path / "out" / "cat_group_cam_n_groups=4.png").is_file()


def test_what_is_left_out_of_a_folder_is_said(cat_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(cat_file, folder)
    for name in ("a.txt", "b.txt", "c.csv", "d.csv", ".hidden.png"):
        (folder / name).touch()
    result = explain(folder, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    said = f"{folder}: a.txt, b.txt, c.csv and 1 more left out: not an image file by its name"
    assert said in result.stdout.splitlines()
    assert f"{folder}: .hidden.png left out: hidden" in result.stdout.splitlines()


def test_only_pictures_of_this_program_are_overwritten(cat_file: Path, tmp_path: Path) -> None:
    out, mine = tmp_path / "out", tmp_path / "out" / "cat_group_cam_n_groups=4.png"
    assert explain(cat_file, "--out", out).exit_code == 0
    first = mine.read_bytes()
    assert explain(cat_file, "--out", out, "--target", "tabby").exit_code == 0
    assert mine.read_bytes() != first

    shutil.copy(cat_file, mine)
    other = shutil.copy(cat_file, tmp_path / "dog.png")
    result = explain(cat_file, other, "--out", out)
    assert result.exit_code == 1
    assert f"{cat_file}: {mine} is there, and not known as a picture of this" in result.stderr
    assert mine.read_bytes() == cat_file.read_bytes()
    assert (out / "dog_group_cam_n_groups=4.png").is_file()
    assert explain(cat_file, "--out", out, "--force").exit_code == 0
    assert mine.read_bytes() == first


def test_pictures_are_not_written_through_links(cat_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "cat_group_cam_n_groups=4.png").symlink_to(tmp_path / "nowhere.png")
    assert explain(cat_file, "--out", out).exit_code == 1
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    (out / "cat_group_cam_n_groups=4.png").unlink()
    (out / "cat_group_cam_n_groups=4.png").symlink_to(victim)
    assert explain(cat_file, "--out", out).exit_code == 1
    assert explain(cat_file, "--out", out, "--force").exit_code == 0
    assert victim.read_text() == "precious"
    assert not (out / "cat_group_cam_n_groups=4.png").is_symlink()
    assert not (tmp_path / "nowhere.png").exists()


def test_the_same_stem_twice(cat_file: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    shutil.copy(cat_file, tmp_path / "b" / "cat.png")
    out = tmp_path / "out"
    result = explain(cat_file, tmp_path / "b", cat_file, "--out", out)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in out.iterdir())
    assert names == ["cat_group_cam_n_groups=4.png", "cat_group_cam_n_groups=4_2.png"]
