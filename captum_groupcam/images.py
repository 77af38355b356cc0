"""Image files, and sample images that come with other packages."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

__all__ = ["MAX_ASPECT_RATIO", "MAX_PIXELS", "SUFFIXES", "FolderScan", "ImageError"]
__all__ += ["find_images", "open_image", "sample_images", "scan_images"]

#: Suffixes by which images in a folder are known: the formats of pictures that Pillow reads.
SUFFIXES = frozenset(
    {".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".icns", ".ico", ".mpo", ".pcx", ".png"}
    | {".jfif", ".jpe", ".jpeg", ".jpg", ".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"}
    | {".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp"}
)
#: Larger images are refused: decoded, this one takes 200 MB.
MAX_PIXELS = 2**26
#: Images whose long side is more than this many times the short one are refused: preprocessing
#: resizes the short side, and with 512 pixels there this one has as many as :data:`MAX_PIXELS`.
MAX_ASPECT_RATIO = 2**8

#: Depths that 16-bit greys are made of, if nearly all values are that small.
_SMALL_DEPTHS = (8, 12)


class ImageError(ValueError):
    """A file that cannot be used as an image; the message names it and says why."""


@dataclass(frozen=True)
class FolderScan:
    """What there is below a path.

    Attributes:
        images (list of Path): The image files, sorted.
        left_out (dict of str to list of Path): What else there is, by the reason that leaves it
            out, sorted.
    """

    images: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)


def scan_images(path: str | Path) -> FolderScan:
    """Finds the image files that a path means, and what else lies there.

    Args:
        path (str or Path): A file, which is taken whatever its suffix, or a folder, which is
            searched to any depth for files with one of :data:`SUFFIXES`. Links are followed. What
            is hidden, by a dot in front of its name, is left out.

    Returns:
        FolderScan: The files, and what was left out: hidden files and folders, files with another
        suffix, folders that cannot be read.

    Raises:
        ImageError: If there is no such path, or it cannot be read.

    Examples::

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (2, 2)).save(folder / "cat.png")
        >>> (folder / "notes.txt").touch()
        >>> found = scan_images(folder)
        >>> [path.name for path in found.images]
        ['cat.png']
        >>> {reason: [path.name for path in paths] for reason, paths in found.left_out.items()}
        {'not an image file by its name': ['notes.txt']}
    """
    path = Path(path)
    if _is_file(path):
        return FolderScan([path])
    try:
        seen = {path.resolve(strict=True)}
        next(path.iterdir(), None)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file or folder") from error
    except (OSError, ValueError) as error:  # no permission, too long, a zero byte
        raise ImageError(f"{path}: cannot be searched ({error})") from error
    scan = FolderScan()

    def leave_out(reason: str, what: Path) -> None:
        scan.left_out.setdefault(reason, []).append(what)

    def cannot_be_read(error: OSError) -> None:
        leave_out(f"cannot be read ({error.strerror})", Path(error.filename))

    for place, folders, files in os.walk(path, onerror=cannot_be_read, followlinks=True):
        base = Path(place)
        # Links last, so that a folder is found in its own place.
        below = sorted(folders, key=lambda name: ((base / name).is_symlink(), name))
        folders.clear()
        for name in below:
            folder = base / name
            if name.startswith("."):
                leave_out("hidden", folder)
            elif (real := folder.resolve()) in seen:
                leave_out("a link to a folder that is searched itself", folder)
            else:
                seen.add(real)
                folders.append(name)
        for name in sorted(files):
            file = base / name
            if name.startswith("."):
                leave_out("hidden", file)
            elif file.suffix.lower() not in SUFFIXES:
                leave_out("not an image file by its name", file)
            elif not _is_file(file):
                leave_out("cannot be read (a broken link, or of a folder without permission)", file)
            else:
                scan.images.append(file)
    for found in (scan.images, *scan.left_out.values()):
        found.sort()
    return scan


def find_images(path: str | Path) -> list[Path]:
    """Finds the image files that a path means: those of :func:`scan_images`.

    Args:
        path (str or Path): A file or a folder.

    Returns:
        list of Path: The files, sorted.

    Raises:
        ImageError: If there is no such path, or no image in the folder; the message says what is
            there.

    Warns:
        UserWarning: If something below cannot be read.

    Examples::

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (2, 2)).save(folder / "cat.png")
        >>> [path.name for path in find_images(folder)]
        ['cat.png']
    """
    scan = scan_images(path)
    if not scan.images:
        raise ImageError(
            f"{path}: no image in this folder ({', '.join(sorted(SUFFIXES))}); {_summary(scan)}"
        )
    for reason, places in scan.left_out.items():
        if reason.startswith("cannot be read"):
            warnings.warn(f"{', '.join(map(str, places))}: {reason}", stacklevel=2)
    return scan.images


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder without permission
        return False


def _summary(scan: FolderScan) -> str:
    """What a folder without images has instead."""
    parts = [
        f"{len(paths)} {reason}: {', '.join(path.name for path in paths[:3])}"
        + ", ..." * (len(paths) > 3)
        for reason, paths in scan.left_out.items()
    ]
    return "; ".join(parts) or "it is empty"


def open_image(
    path: str | Path, max_pixels: int = MAX_PIXELS, *, upright: bool = True
) -> Image.Image:
    """Opens an image as 8-bit RGB, the way up that its camera noted (EXIF orientation).

    Transparent parts become white. Of an animation, or a file of several pages, it is the first
    one. 16-bit greys are brought to 8 bits; if 99.9 % of them are below 2**12 (2**8), as in X-rays
    and pictures of microscopes, they are taken for greys of 12 (8) bits, and the others are white.

    Args:
        path (str or Path): The file.
        max_pixels (int, optional): Largest width times height. Default: :data:`MAX_PIXELS`.
        upright (bool, optional): Whether the orientation is applied; not where boxes refer to the
            pixels as they are stored. Default: True.

    Returns:
        PIL.Image.Image: The image, RGB.

    Raises:
        ImageError: If the file is missing, damaged, no image, too large or too elongated
            (:data:`MAX_ASPECT_RATIO`).

    Warns:
        UserWarning: If 99.9 % of 16-bit pixels use less than a quarter of their range.

    Examples::

        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "grey.png"
        >>> Image.new("L", (4, 3), 128).save(path)
        >>> open_image(path).getpixel((0, 0))
        (128, 128, 128)
    """
    try:
        with warnings.catch_warnings():
            # Its limit is ours to set, and damaged metadata do not matter.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                _check_size(image, path, max_pixels)
                cut = _is_cut_to_8_bits(image)
                if upright:
                    ImageOps.exif_transpose(image, in_place=True)
                rgb, note = _to_rgb(image, cut=cut)
    except ImageError:
        raise
    except Exception as error:  # the decoders raise nearly anything on damaged files
        raise ImageError(f"{path}: cannot be read as an image ({error})") from error
    if note is not None:
        warnings.warn(f"{path}: {note}. Bring it to 8 bits first if that is wrong", stacklevel=2)
    return rgb


def _check_size(image: Image.Image, path: str | Path, max_pixels: int) -> None:
    short, long = sorted(image.size)
    size = f"{image.width} x {image.height} pixels"
    if short * long > max_pixels:
        raise ImageError(f"{path}: {size}, more than the limit of {max_pixels}")
    if long > MAX_ASPECT_RATIO * short:
        raise ImageError(
            f"{path}: too elongated, {size}: one side is more than {MAX_ASPECT_RATIO} times the "
            "other, and resizing the short one to what a network takes would make it huge"
        )


def _is_cut_to_8_bits(image: Image.Image) -> bool:
    """Whether Pillow keeps the upper 8 bits of 16-bit colours when it decodes an image."""
    if image.mode.startswith("I"):
        return False
    # "RGB;16B", but not "BGR;16", which has 16 bits for all three.
    return any(
        re.search(r"(?<!BGR);16[BLN]?\b", str(tile[-1])) for tile in getattr(image, "tile", ())
    )


def _high(values: np.ndarray) -> int:
    """What 99.9 % of the values do not exceed: a bad pixel or a caption in white is no light."""
    flat = values.reshape(-1)
    place = math.ceil(0.999 * (flat.size - 1))
    return int(np.partition(flat, place)[place])


def _to_rgb(image: Image.Image, *, cut: bool) -> tuple[Image.Image, str | None]:
    """An image as 8-bit RGB, and what was assumed about it."""
    note = None
    if cut:
        pixels = np.asarray(image.convert("RGBA"))
        shown = pixels[pixels[..., 3] > 0, :3].max(1)
        share = "" if not shown.size else _share_of_range(_high(shown) << 8)
        note = f"its 16-bit colours {share}" if share else None
    if image.mode == "F":
        raise ValueError("floating-point pixels of unknown range")
    if image.mode.startswith("I"):
        # Pillow clips at 255 where it should scale.
        greys = np.asarray(image).astype(np.int64)
        largest = greys.max()
        if greys.min() < 0 or largest >= 2**16:
            raise ValueError("integer pixels of more than 16 bits, of unknown range")
        high = _high(greys.astype(np.uint16))
        depth = next((bits for bits in _SMALL_DEPTHS if high < 2**bits), 16)
        if depth < 16 and largest > 0:
            few = ", but for a few pixels," if largest >= 2**depth else ""
            note = (
                f"its 16-bit greys reach only {high}{few} and are taken for greys of {depth} bits"
            )
        elif share := _share_of_range(high):
            note = f"its 16-bit greys {share}"
        image = Image.fromarray(np.minimum(greys >> (depth - 8), 255).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB"), note


def _share_of_range(high: int) -> str:
    """What to say of 16-bit values that reach so far, if most of their range is not used."""
    if not 0 < high < 2**14:
        return ""
    share, how = ("sixteenth", "nearly black") if high < 2**12 else ("quarter", "dark")
    return f"use less than a {share} of their range, so it is {how}"


def sample_images() -> dict[str, Callable[[], Image.Image]]:
    """Photos that come inside scikit-image and scikit-learn, hence without a download.

    Returns:
        dict of str to Callable: A name to a function that loads the image, RGB. It raises
        ModuleNotFoundError, with the command to run, if the package is missing.

    Examples::

        >>> sample_images()["cat"]().size
        (451, 300)
    """
    return {
        "cat": partial(_from_skimage, "chelsea"),
        "coffee": partial(_from_skimage, "coffee"),
        "motorcycle": partial(_from_skimage, "stereo_motorcycle"),
        "rocket": partial(_from_skimage, "rocket"),
        "camera": partial(_from_skimage, "camera"),
        "astronaut": partial(_from_skimage, "astronaut"),
        "flower": partial(_from_sklearn, "flower.jpg"),
        "china": partial(_from_sklearn, "china.jpg"),
    }


def _from_skimage(name: str) -> Image.Image:
    try:
        from skimage import data
    except ModuleNotFoundError as error:
        raise _missing("scikit-image", error) from error
    pixels = getattr(data, name)()
    # A stereo pair comes with its disparities; the left eye will do.
    return Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels).convert("RGB")


def _from_sklearn(name: str) -> Image.Image:
    try:
        from sklearn.datasets import load_sample_image
    except ModuleNotFoundError as error:
        raise _missing("scikit-learn", error) from error
    return Image.fromarray(load_sample_image(name)).convert("RGB")


def _missing(package: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"The sample images need the package {package}: pip install 'captum_groupcam[bench]'",
        name=error.name,
    )
