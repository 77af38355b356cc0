"""Images, classes and methods that fail in a run, and folders that are not data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.data import DATASETS, Dataset, Sample
from benchmarks.run.loop import RunSettings, run
from benchmarks.run.rows import COST
from captum_groupcam.methods import MethodSpec
from tests.benchmarks.run.small_runs import MEASURED, N_SAMPLES, SPECS


def test_names_are_printed_as_they_are(
    settings: RunSettings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def loader() -> Sample:
        raise OSError("gone")

    named = Dataset({"a.jpg:dog": loader}, has_objects=False)
    monkeypatch.setitem(DATASETS, "named", lambda _root, _names: named)
    small = replace(settings, dataset="named", methods=SPECS[:1], measures=MEASURED[:1])
    run(small)
    assert "a.jpg:dog: OSError: gone" in capsys.readouterr().out


def test_a_damaged_image_is_a_row(data: Path, settings: RunSettings, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    (root / "images").mkdir(parents=True)
    (root / "boxes.csv").write_text((data / "boxes.csv").read_text())
    for index in (0, 2):
        name = f"{index}.png"
        (root / "images" / name).write_bytes((data / "images" / name).read_bytes())
    (root / "images" / "2.png").write_bytes(b"no picture")
    folder = run(replace(settings, root=root, methods=SPECS[:1]))
    assert folder is not None
    failures = {row.sample: row.error for row in folder.rows() if row.error}
    assert set(failures) == {"1.png:1", "2.png:2"}
    assert "2.png" in str(failures["2.png:2"])
    assert len(folder.rows()) == 1 + len(MEASURED) + 2


def test_what_failed_stays_until_it_is_tried_again(
    data: Path, settings: RunSettings, tmp_path: Path
) -> None:
    root = tmp_path / "late"
    (root / "images").mkdir(parents=True)
    (root / "boxes.csv").write_text((data / "boxes.csv").read_text())
    settings = replace(settings, root=root, methods=SPECS[:1])
    folder = run(settings)
    assert folder is not None
    assert sum(row.error is not None for row in folder.rows()) == N_SAMPLES
    for file in (data / "images").iterdir():
        (root / "images" / file.name).write_bytes(file.read_bytes())
    run(settings)
    assert sum(row.error is not None for row in folder.rows()) == N_SAMPLES
    run(replace(settings, retry=True))
    rows = folder.rows()
    assert len(rows) == N_SAMPLES * (1 + len(MEASURED))
    assert all(row.error is None for row in rows)


def test_a_method_that_fails_is_a_row_that_says_why(settings: RunSettings) -> None:
    # Grad-CAM asks for a gradient that is not there: the pooling of the class maps has no layer.
    folder = run(replace(settings, methods=[MethodSpec("cam", layer="features.3"), *SPECS[:1]]))
    assert folder is not None
    failed = [row for row in folder.rows() if row.error]
    assert {row.key[1:] for row in failed} == {("cam:layer=features.3", COST)}
    assert all("pool the layer by its mean" in str(row.error) for row in failed)
    assert sum(row.method == "centre" for row in folder.rows()) == N_SAMPLES * 3


def test_a_class_that_the_network_does_not_have(settings: RunSettings, tmp_path: Path) -> None:
    root = tmp_path / "wrong"
    (root / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "images" / "a.png")
    (root / "boxes.csv").write_text("file,label,x0,y0,x1,y1\na.png,1000,0,0,4,4\n")
    with pytest.raises(ValueError, match="1000"):
        run(replace(settings, root=root))


def test_an_empty_folder(settings: RunSettings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no"):
        run(replace(settings, root=tmp_path))
    with pytest.raises(ValueError, match="Unknown dataset 'imagnet'"):
        run(replace(settings, dataset="imagnet"))
