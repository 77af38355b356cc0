from __future__ import annotations

import contextlib
import io
import socket
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captum_groupcam.images import ImageError, find_images, open_image, sample_images


def picture() -> np.ndarray:
    """6 rows, 4 columns, every pixel another colour."""
    return np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3


def test_a_file_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "photo.data"
    path.touch()
    assert find_images(path) == [path]
    assert find_images(str(path)) == [path]


def test_a_folder_gives_its_images_in_order(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "folder.png").mkdir()
    names = ["b.PNG", "a.jpg", "below/c.JPEG", "notes.txt", ".hidden.jpg", "d.webp", "noSuffix"]
    for name in names:
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.jpg", "b.PNG", "below/c.JPEG", "d.webp"]


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png: no such file or folder"):
        find_images(tmp_path / "nowhere.png")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match="no image in this folder"):
        find_images(tmp_path)


def test_pixels_are_kept(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened), picture())


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (3, lambda a: a[::-1, ::-1]),
        (6, lambda a: a[::-1].swapaxes(0, 1)),  # a quarter clockwise
        (8, lambda a: a[:, ::-1].swapaxes(0, 1)),
    ],
)
def test_the_cameras_orientation(tmp_path: Path, orientation: int, upright) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), upright(picture()))


def test_other_kinds_of_pixels_become_rgb(tmp_path: Path) -> None:
    grey = np.array([[0, 128], [200, 255]], dtype=np.uint8)
    kinds = {
        "grey.png": Image.fromarray(grey),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "deep.tif": Image.fromarray(grey.astype(np.uint16) * 257),
        "palette.gif": Image.fromarray(grey).convert("P"),
        "inks.tif": Image.fromarray(grey).convert("RGB").convert("CMYK"),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
        opened = open_image(tmp_path / name)
        assert opened.mode == "RGB"
        assert np.array_equal(np.asarray(opened), np.stack([grey] * 3, 2)), name


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    opened = np.asarray(open_image(tmp_path / "a.png"))
    assert opened.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_unusable_files_are_named(tmp_path: Path, damaged_file: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    for path in [
        damaged_file,
        *(tmp_path / name for name in ("text.png", "empty.jpg", "float.tif", "missing.png")),
        tmp_path,
    ]:
        with pytest.raises(ImageError, match="cannot be read as an image") as caught:
            open_image(path)
        assert str(caught.value).startswith(str(path))


def test_large_images_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(picture()).save(path)
    assert open_image(path, max_pixels=24).size == (4, 6)
    with pytest.raises(ImageError, match=r"large\.png: 4 x 6 pixels, more than the limit of 23"):
        open_image(path, max_pixels=23)


@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns of one and refuses the other
def test_decompression_bombs(tmp_path: Path, side: int) -> None:
    size_at = 16  # in the header of a PNG, which says how large the image would be
    content = bytearray(_ENCODED["PNG"])
    content[size_at : size_at + 8] = struct.pack(">II", side, side)
    content[size_at + 13 : size_at + 17] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"bomb\.png: "):
        open_image(tmp_path / "bomb.png")


_ENCODED = {}
for _format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
    _file = io.BytesIO()
    Image.fromarray(np.tile(picture(), (4, 4, 1))).save(_file, _format)
    _ENCODED[_format] = _file.getvalue()


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(sorted(_ENCODED)), data=st.data())
def test_damage_gives_an_image_or_an_image_error(tmp_path_factory, kind: str, data) -> None:
    content = bytearray(_ENCODED[kind])
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(ImageError):
        assert open_image(path).mode == "RGB"


def test_sample_images_need_no_network(monkeypatch) -> None:
    def refuse(*_args, **_kwargs):
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    samples = sample_images()
    assert {"cat", "coffee", "rocket", "astronaut", "flower", "china"} <= samples.keys()
    for load in samples.values():
        image = load()
        assert image.mode == "RGB"
        assert min(image.size) >= 256


@pytest.mark.parametrize(("name", "module"), [("cat", "skimage"), ("flower", "sklearn.datasets")])
def test_sample_images_say_what_to_install(monkeypatch, name: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'captum_groupcam\[bench\]'"):
        sample_images()[name]()
