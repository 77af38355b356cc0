from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from torchvision.transforms.functional import resize

from captum_groupcam.images import (
    MAX_PIXELS,
    ImageError,
    find_images,
    open_image,
    sample_images,
    scan_images,
)


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


def test_what_else_lies_in_a_folder_is_named(tmp_path: Path) -> None:
    for name in ["a.jpg", "notes.txt", "raw/b.heic", "raw/c.jpg", ".DS_Store", ".trash/d.jpg"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "again").symlink_to(tmp_path / "raw")
    (tmp_path / "round").symlink_to(tmp_path)
    scan = scan_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in scan.images] == ["a.jpg", "raw/c.jpg"]
    left_out = {reason: [path.name for path in paths] for reason, paths in scan.left_out.items()}
    assert left_out == {
        "hidden": [".DS_Store", ".trash"],
        "not an image file by its name": ["notes.txt", "b.heic"],
        "cannot be read (a broken link, or of a folder without permission)": ["gone.png"],
        "a link to a folder that is searched itself": ["again", "round"],
    }


def test_links_to_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    for place in (elsewhere, folder):
        place.mkdir()
    (elsewhere / "a.jpg").touch()
    (folder / "linked").symlink_to(elsewhere)
    assert find_images(folder) == [folder / "linked/a.jpg"]


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png: no such file or folder"):
        find_images(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match=r"no image in this folder .*; it is empty"):
        find_images(tmp_path)
    (tmp_path / "notes.txt").touch()
    for name in "abcd":
        (tmp_path / f"{name}.heic").touch()
    with pytest.raises(ImageError, match=r"5 not an image .*: a\.heic, b\.heic, c\.heic, \.\.\."):
        find_images(tmp_path)


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000, "zero\0byte"])
def test_paths_that_no_system_takes(tmp_path: Path, name: str) -> None:
    for function in (find_images, open_image):
        with pytest.raises(ImageError):
            function(tmp_path / name)


@pytest.fixture
def without_rights() -> Iterator[Path]:
    """A folder of a user who is not the administrator, whom nothing is forbidden."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            for path in folder.iterdir():
                path.chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="needs the rights of POSIX")
def test_folders_without_permission_are_named(without_rights: Path) -> None:
    for name in ("open", "closed", "half"):
        (without_rights / name).mkdir()
        (without_rights / name / "a.png").touch()
    (without_rights / "closed").chmod(0)
    (without_rights / "half").chmod(0o400)  # may be listed, but nothing in it may be opened
    scan = scan_images(without_rights)
    assert scan.images == [without_rights / "open/a.png"]
    left_out = [(reason, path.name) for reason, paths in scan.left_out.items() for path in paths]
    assert sorted(left_out) == [
        ("cannot be read (Permission denied)", "closed"),
        ("cannot be read (a broken link, or of a folder without permission)", "a.png"),
    ]
    with pytest.warns(UserWarning, match="cannot be read"):
        assert find_images(without_rights) == scan.images
    with pytest.raises(ImageError, match=r"closed: cannot be searched .*Permission denied"):
        find_images(without_rights / "closed")


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


@pytest.mark.parametrize(
    ("suffix", "exact"),
    [
        (".jfif", False),
        (".jpe", False),
        (".avif", False),
        (".jp2", True),
        (".j2k", True),
        (".tga", True),
        (".ppm", True),
        (".webp", False),
    ],
)
def test_formats_that_pillow_reads_are_images(tmp_path: Path, suffix: str, exact: bool) -> None:
    feature = {".avif": "avif", ".jp2": "jpg_2000", ".j2k": "jpg_2000"}.get(suffix)
    if feature and not features.check(feature):
        pytest.skip(f"this Pillow has no {feature}")
    pixels = np.full((24, 32, 3), (200, 120, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    (found,) = find_images(tmp_path)
    opened = np.asarray(open_image(found)).astype(int)
    assert np.abs(opened - pixels).max() <= (0 if exact else 8)


def test_of_several_pages_it_is_the_first(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (4, 3), (shade,) * 3) for shade in (7, 80, 200)]
    for name in ("pages.tif", "frames.gif", "frames.png"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        opened = open_image(tmp_path / name)
        assert (opened.size, opened.getpixel((1, 1))) == ((4, 3), (7, 7, 7)), name


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("depth", [8, 12])
def test_greys_of_few_bits_in_16_are_not_black(tmp_path: Path, suffix: str, depth: int) -> None:
    """An X-ray of 12 bits: the ramp from black to white is one."""
    path = tmp_path / f"ramp{suffix}"
    ramp = np.linspace(0, 2**depth - 1, 256).round().astype(np.uint16)
    Image.fromarray(np.tile(ramp, (3, 1))).save(path)
    with pytest.warns(UserWarning, match=rf"ramp.*: its 16-bit greys .* of {depth} bits"):
        opened = np.asarray(open_image(path))
    assert np.abs(opened[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_16_bit_greys_that_are_bright_or_black_stay_so(tmp_path: Path) -> None:
    for largest in (0, 16384, 65535):
        greys = np.array([[0, largest]], dtype=np.uint16)
        Image.fromarray(greys).save(tmp_path / "a.png")
        opened = np.asarray(open_image(tmp_path / "a.png"))
        assert opened[0, :, 0].tolist() == [0, largest // 256]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_bad_pixel_is_no_light(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ramp{suffix}"
    ramp = np.linspace(0, 4095, 1600).reshape(40, 40).astype(np.uint16)
    ramp[0, 0] = 65535
    Image.fromarray(ramp).save(path)
    with pytest.warns(UserWarning, match=r"but for a few pixels, and are taken .* of 12 bits"):
        opened = np.asarray(open_image(path))
    expected = (ramp >> 4).clip(max=255)
    assert np.array_equal(opened, np.stack([expected] * 3, 2))
    assert np.median(opened) == 128


def test_16_bit_greys_of_a_part_of_their_range_are_warned_of(tmp_path: Path) -> None:
    greys = np.linspace(0, 5000, 1600).reshape(40, 40).astype(np.uint16)
    for bright in (False, True):  # one pixel is no more than a bad one
        greys[5, 5] = 65535 if bright else 0
        Image.fromarray(greys).save(tmp_path / "a.png")
        with pytest.warns(UserWarning, match="16-bit greys use less than a quarter .* it is dark"):
            opened = np.asarray(open_image(tmp_path / "a.png"))
        assert np.array_equal(opened[..., 0], greys >> 8)


def deep_png(path: Path, pixels: np.ndarray) -> None:
    """A PNG of 16-bit colours, which Pillow reads but does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    height, width, channels = pixels.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_16_bit_colours_that_turn_black_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    pixels = np.random.default_rng(0).integers(0, 2**16, (5, 4, 3), dtype=np.uint16)
    deep_png(path, pixels)
    assert np.array_equal(np.asarray(open_image(path)), pixels >> 8)
    for few_bits in (pixels >> 4, np.dstack([pixels >> 4, np.full((5, 4), 2**16 - 1, np.uint16)])):
        deep_png(path, few_bits)
        with pytest.warns(UserWarning, match=r"deep\.png: its 16-bit colours .* nearly black"):
            open_image(path)


def test_16_bit_colours_of_a_part_of_their_range_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    pixels = np.random.default_rng(0).integers(0, 6000, (50, 40, 3), dtype=np.uint16)
    pixels[3, 3] = 65535
    # What is transparent becomes white, and is none of it.
    alpha = np.full((50, 40, 1), 2**16 - 1, np.uint16)
    alpha[:20] = 0
    for dark in (pixels, np.concatenate([pixels, alpha], 2)):
        deep_png(path, dark)
        with pytest.warns(UserWarning, match=r"16-bit colours use less than a quarter .* is dark"):
            open_image(path)


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


@pytest.mark.parametrize("size", [(65_000, 1), (1, 257), (20_000, 10)])
def test_elongated_images_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "long.png"
    Image.new("L", size).save(path)
    with pytest.raises(ImageError, match=r"long\.png: too elongated, \d+ x \d+ pixels"):
        open_image(path)


def test_what_is_not_refused_is_within_the_limit_after_resizing_too(tmp_path: Path) -> None:
    Image.new("L", (256, 1), 200).save(tmp_path / "long.png")
    image = open_image(tmp_path / "long.png")
    resized = resize(image, 512)  # the short side, as preprocessing does
    assert resized.width * resized.height == MAX_PIXELS


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
