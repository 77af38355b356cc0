from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from captum_groupcam.naming import find_object, is_reference, short_reference, split_reference


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a package and a file; what is imported from it is forgotten."""
    known, path = set(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "ownpkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(
        "class Net:\n    size = 3\n\n    def make():\n        return 7\n"
    )
    (tmp_path / "single.py").write_text("import beside\nclass Point:\n    pass\nx = beside.x\n")
    (tmp_path / "beside.py").write_text("x = 5\n")
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_an_object_of_a_package_in_the_current_folder(folder: Path) -> None:
    assert find_object("ownpkg.nets:Net").size == 3
    assert find_object("ownpkg.nets:Net.make")() == 7


def test_an_object_of_a_file_that_imports_from_beside_it(folder: Path, tmp_path_factory) -> None:
    assert find_object("single.py:x") == 5
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "single.py").write_text("x = 6\n")
    assert find_object(f"{elsewhere}/single.py:x") == 6
    assert find_object("single.py:x", folder=elsewhere) == 6
    assert find_object("single.py:x") == 5


def test_an_object_of_a_file_is_the_same_each_time_and_can_be_pickled(folder: Path) -> None:
    point = find_object("single.py:Point")
    assert find_object("./single.py:Point") is point
    assert pickle.loads(pickle.dumps(point)) is point


def test_nothing_installed_is_hidden(folder: Path) -> None:
    (folder / "colorsys.py").write_text("raise SystemExit('the wrong one')\n")
    sys.modules.pop("colorsys", None)
    assert find_object("colorsys:rgb_to_hsv")(0, 0, 0) == (0.0, 0.0, 0)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nopkg.model:build", "There is no module 'nopkg'"),
        ("ownpkg.model:build", r"There is no module 'ownpkg\.model'"),
        ("ownpkg.nets:Nett", r"nets\.py has no 'Nett', which .* names; did you mean Net\?"),
        ("ownpkg.nets:Net.maker", "has no 'maker'"),
        ("nowhere.py:build", r"There is no file nowhere\.py"),
        ("single.py", r"Expected package\.module:object or path/file\.py:object"),
        ("broken.py:build", r"broken\.py failed: SyntaxError: .*broken\.py, line 1"),
        ("needy.py:build", r"needy\.py failed: ModuleNotFoundError: No module named 'nopkg'"),
        ("leaving.py:build", r"leaving\.py failed: SystemExit: 3 \(.*leaving\.py, line 2\)"),
        ("failing.py:build", r"failing\.py failed: KeyError: 'a' \(.*failing\.py, line 3\)"),
        ("wrong.py:build", r"wrong\.py failed: ValueError: two lines \(.*wrong\.py, line 1\)"),
    ],
)
def test_what_cannot_be_found_is_one_line(folder: Path, reference: str, message: str) -> None:
    (folder / "broken.py").write_text("def build(:\n")
    (folder / "needy.py").write_text("import nopkg\n")
    (folder / "leaving.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "failing.py").write_text("def f():\n    # deep\n    return {}['a']\nf()\n")
    (folder / "wrong.py").write_text("raise ValueError('two\\nlines')\n")
    with pytest.raises(ValueError, match=message) as caught:
        find_object(reference)
    assert len(str(caught.value).splitlines()) == 1
    # A second attempt says the same, not that a half-made module lacks something.
    with pytest.raises(ValueError, match=message):
        find_object(reference)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("group_cam", ("group_cam", "")),
        ("group_cam:", ("group_cam", "")),
        ("group_cam:n_groups=8,layer=a.b", ("group_cam", "n_groups=8,layer=a.b")),
        ("group_cam:layer=a:b", ("group_cam", "layer=a:b")),
        ("a.b:c", ("a.b:c", "")),
        ("a.b:c:power=2,layer=x:y", ("a.b:c", "power=2,layer=x:y")),
        ("dir with space/f.py:c.d:power=2", ("dir with space/f.py:c.d", "power=2")),
        ("a.b : c", ("a.b:c", "")),
    ],
)
def test_a_name_is_split_from_its_options(text: str, parts: tuple[str, str]) -> None:
    assert split_reference(text) == parts


def test_what_is_no_reference() -> None:
    for text in ("", ":", "a:", ":b", "a:b=c", "a:b c", "a b:c", "a:0", "x/y:z", "C.py"):
        assert not is_reference(text), text


def test_the_short_form_has_no_folders() -> None:
    assert short_reference("/home/me/cams.py:cam") == "cams.py:cam"
    assert short_reference("resnet50") == "resnet50"
