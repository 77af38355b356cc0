"""Image files, and sample images that come with other packages."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

__all__ = ["MAX_PIXELS", "SUFFIXES", "ImageError", "find_images", "open_image", "sample_images"]

#: Suffixes by which images in a folder are known.
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
#: Larger images are refused: decoded, this one takes 200 MB.
MAX_PIXELS = 2**26


class ImageError(ValueError):
    """A file that cannot be used as an image; the message names it and says why."""


def find_images(path: str | Path) -> list[Path]:
    """Finds the image files that a path means.

    Args:
        path (str or Path): A file, which is taken whatever its suffix, or a folder, which is
            searched to any depth for files with one of :data:`SUFFIXES` (hidden ones excepted).

    Returns:
        list of Path: The files, sorted.

    Raises:
        ImageError: If there is no such path, or no image in the folder.

    Examples::

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (2, 2)).save(folder / "cat.png")
        >>> [path.name for path in find_images(folder)]
        ['cat.png']
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ImageError(f"{path}: no such file or folder")
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not found:
        raise ImageError(f"{path}: no image in this folder ({', '.join(sorted(SUFFIXES))})")
    return found


def open_image(
    path: str | Path, max_pixels: int = MAX_PIXELS, *, upright: bool = True
) -> Image.Image:
    """Opens an image as 8-bit RGB, the way up that its camera noted (EXIF orientation).

    Transparent parts become white, 16-bit greys are brought to 8 bits. Of an animation it is the
    first frame.

    Args:
        path (str or Path): The file.
        max_pixels (int, optional): Largest width times height. Default: :data:`MAX_PIXELS`.
        upright (bool, optional): Whether the orientation is applied; not where boxes refer to the
            pixels as they are stored. Default: True.

    Returns:
        PIL.Image.Image: The image, RGB.

    Raises:
        ImageError: If the file is missing, damaged, no image, or too large.

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
                if image.width * image.height > max_pixels:
                    raise ImageError(
                        f"{path}: {image.width} x {image.height} pixels, more than the limit of "
                        f"{max_pixels}"
                    )
                return _to_rgb(ImageOps.exif_transpose(image) if upright else image)
    except ImageError:
        raise
    except Exception as error:  # the decoders raise nearly anything on damaged files
        raise ImageError(f"{path}: cannot be read as an image ({error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels of unknown range")
    if image.mode.startswith("I"):
        # Pillow clips at 255 where it should scale.
        greys = np.asarray(image).astype(np.int64)
        if greys.min() < 0 or greys.max() >= 2**16:
            raise ValueError("integer pixels of more than 16 bits, of unknown range")
        image = Image.fromarray((greys >> 8).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


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
    return _to_rgb(Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels))


def _from_sklearn(name: str) -> Image.Image:
    try:
        from sklearn.datasets import load_sample_image
    except ModuleNotFoundError as error:
        raise _missing("scikit-learn", error) from error
    return _to_rgb(Image.fromarray(load_sample_image(name)))


def _missing(package: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"The sample images need the package {package}: pip install 'captum_groupcam[bench]'",
        name=error.name,
    )
