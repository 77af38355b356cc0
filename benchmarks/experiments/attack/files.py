"""Attacks by files that a user gives: weights that are none, odd pictures and names."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from typer.testing import CliRunner

from captum_groupcam.apps.cli import app
from captum_groupcam.models import load_model

from .attacks import Attack, Outcome
from .threads import network
from .toys import good_sample, toys

__all__ = ["ATTACKS", "odd_pictures", "saved"]

#: What a file is that is named like weights.
_NO_WEIGHTS: tuple[bytes, ...] = (
    b"",
    b"hello world",
    b"\0" * 1000,
    b"\x80\x02.",
    b"\x80\x04N.",
    b"PK\x03\x04",
    b"PK\x05\x06" + b"\0" * 18,
    b"{}",
    b"<html></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    struct.pack("<Q", 2) + b"{}",
    struct.pack("<Q", 2**63) + b"{}",
    struct.pack("<Q", 8) + b'{"a": 1}',
    pickle.dumps([1, 2, 3]),
    pickle.dumps({"a": object}),
    pickle.dumps(np.ones(3)),
)


def _checkpoints() -> Iterator[bytes]:
    """Small files as torch and others write them, none of which fits the network."""
    state = network().state_dict()
    contents: tuple[Any, ...] = (
        state,
        {"state_dict": state, "epoch": 3},
        {"model": {f"module.{name}": value for name, value in state.items()}},
        [1, 2],
        {1: torch.ones(2)},
        {"features.0.weight": None},
        network(),
    )
    for content in contents:
        for is_zip in (True, False):
            with io.BytesIO() as file:
                torch.save(content, file, _use_new_zipfile_serialization=is_zip)
                yield file.getvalue()
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("data.pkl", b"hello")
        yield file.getvalue()


def _fuzzed(content: bytes, rng: np.random.Generator) -> bytes:
    """Content with some bytes changed, cut off, left out or doubled."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(max(len(changed), 1)))
        length = int(rng.integers(1, 32))
        kind = int(rng.integers(4))
        if kind == 0:
            changed[at : at + length] = rng.bytes(min(length, len(changed) - at))
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            del changed[at : at + length]
        else:
            changed[at:at] = changed[at : at + length]
    return bytes(changed)


def _weights(folder: Path, small: bool) -> Outcome:
    """Weights that are no checkpoint, or a damaged one: a ValueError in few lines, or weights."""
    rng = np.random.default_rng(0)
    whole = [*_NO_WEIGHTS, *_checkpoints()]
    count = 40 if small else 6000
    contents = [*whole, *(_fuzzed(whole[int(rng.integers(len(whole)))], rng) for _ in range(count))]
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index, content in enumerate(contents):
            file = folder / ("weights.safetensors" if index % 5 == 4 else "weights.pt")
            file.write_bytes(content)
            try:
                load_model("squeezenet1_1", str(file))
            except ValueError as error:
                if len(str(error).splitlines()) > 3:
                    wrong.append(f"file {index}: {error}")
            except Exception as error:
                wrong.append(f"file {index}: {type(error).__name__}: {error}")
    return Outcome(len(contents), {"tracebacks": len(wrong)}, wrong)


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that says how large it is, whatever it holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file of a kind holds it."""
    with io.BytesIO() as file:
        image.save(file, kind, **options)
        return file.getvalue()


def odd_pictures(small: bool) -> dict[str, bytes]:
    """Files by name: odd pictures, and what is none."""
    image = good_sample(0).image
    grey = image.convert("L")
    files = {
        "empty.png": b"",
        "text.jpg": b"no picture",
        "one pixel.png": saved(image.resize((1, 1)), "PNG"),
        "long.png": saved(Image.new("L", (65_000, 1)), "PNG"),
        "high.png": saved(Image.new("L", (1, 20_000)), "PNG"),
        "too large.png": _png(100_000, 100_000),
        "without data.png": _png(32, 32),
        "without size.png": _png(0, 0),
        "grey.png": saved(grey, "PNG"),
        "bits.png": saved(grey.convert("1"), "PNG"),
        "deep.png": saved(grey.convert("I;16"), "PNG"),
        "float.tiff": saved(grey.convert("F"), "TIFF"),
        "palette.gif": saved(image.convert("P"), "GIF"),
        "frames.gif": saved(image, "GIF", save_all=True, append_images=[image] * 3),
        "transparent.png": saved(image.convert("RGBA"), "PNG"),
        "print.jpg": saved(image.convert("CMYK"), "JPEG"),
        "another.png": saved(image, "JPEG"),
        "turned.jpg": saved(image, "JPEG", exif=_turned()),
    }
    rng = np.random.default_rng(0)
    kinds: Mapping[str, bytes] = {
        kind: saved(image, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
    }
    for index in range(6 if small else 120):
        kind = list(kinds)[index % len(kinds)]
        files[f"fuzzed {index}.{kind.lower()}"] = _fuzzed(kinds[kind], rng)
    good = saved(image, "PNG")
    return files | dict.fromkeys(_NAMES, good)


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


_NAMES: tuple[str, ...] = (
    "\x1b[2J\x1b[31mred.png",
    "two\nlines.png",
    "bell\a.png",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe.png",
    os.fsdecode(b"not utf-8 \xff\xfe.png"),
    "cafe\N{COMBINING ACUTE ACCENT} \N{CAT}.png",
    f"{'x' * 251}.png",
    "$a_b$.png",
    "[bold]x[bold].png",
    "-- out.png",
    "%s {0} {{x}}.png",
    "con.png",
)


def _batches(folder: Path, small: bool) -> Outcome:
    """A batch of odd pictures and names, among good ones: the good ones are explained."""
    photos, out = folder / "photos", folder / "out"
    photos.mkdir()
    files = odd_pictures(small)
    for name, content in files.items():
        (photos / name).write_bytes(content)
    (photos / "gone.png").symlink_to(folder / "nowhere.png")
    (photos / "round").symlink_to(photos)
    (photos / "folder.png").mkdir()
    paths = [photos, folder / ("y" * 300), folder / "missing.png"]
    good = [folder / "a good one.png", folder / "the last one.png"]
    for path in good:
        good_sample(1).image.save(path)
    arguments = ["explain", good[0], *paths, good[1], "--model=attacked", "--method=grad_cam"]
    with toys({}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = CliRunner().invoke(app, [*map(str, arguments), f"--out={out}"])
    wrong = []
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        wrong.append(f"the batch ended: {type(done.exception).__name__}: {done.exception}")
    if "\x1b" in done.output:
        wrong.append("a name is printed as a command for the terminal")
    written = {path.name for path in out.iterdir()} if out.is_dir() else set()
    for path in good:
        if f"{path.stem}_grad_cam.png" not in written:
            wrong.append(f"{path.name} is not explained: {done.output[-300:]}")
    if len(written) < len(good) + len(_NAMES):
        wrong.append(f"{len(written)} pictures for {len(good) + len(_NAMES)} good files")
    return Outcome(len(files) + len(paths) + 3, {"batches ended": len(wrong)}, wrong)


ATTACKS: tuple[Attack, ...] = (
    Attack("files that are no weights", "files", _weights),
    Attack("odd pictures and names", "files", _batches),
)
