"""From a picture to what a network takes, described by five values."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from captum_groupcam.naming import find_object, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IMAGENET", "Preprocess", "Preprocessing", "channel_statistics", "find_preprocess"]

#: Turns a PIL image (RGB) into C x H x W.
Preprocess: TypeAlias = "Callable[[Image], Tensor]"

#: Pillow's names, but for those that are of no use here.
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Preprocessing:
    """Resizes a picture, cuts its centre out, and normalises its colours.

    Args:
        image_size (int or tuple of int): Side of the network's inputs, or height and width.
        mean (sequence of float): Mean of each channel, of values in [0, 1], that is taken off.
        std (sequence of float): Standard deviation that is divided by.
        resize (int or str, optional): The length that the shorter side is brought to before the
            centre is cut out; "stretch" brings the whole picture to the image size, whatever its
            shape. Default: None, just as long as the image size needs.
        interpolation (str, optional): "bilinear", "bicubic", "lanczos" or "nearest".
            Default: "bilinear".

    Raises:
        ValueError: If a value is out of range.

    Examples::

        >>> from PIL import Image
        >>> preprocess = Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256)
        >>> preprocess(Image.new("RGB", (300, 400))).shape
        torch.Size([3, 224, 224])
    """

    image_size: int | tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | Literal["stretch"] | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        # Lists, as files have them, are tuples from here on.
        for name in ("image_size", "mean", "std"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        sides = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,) * 2
        if len(sides) != 2 or not all(_is_whole(side) and side > 0 for side in sides):
            raise ValueError(
                f"The image size is a side, or height and width, got {self.image_size!r}."
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not values or not all(map(_is_number, values)):
                raise ValueError(f"{name} is a number for each channel, got {values!r}.")
            if max(map(abs, values)) > 2:
                raise ValueError(
                    f"{name} is of values in [0, 1], got {values}: divide by 255 what is of pixels."
                )
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(
                f"std has a number above 0 for each channel of the mean, got {self.std} beside "
                f"{self.mean}."
            )
        if isinstance(self.resize, str):
            if self.resize != "stretch":
                raise ValueError(f"resize is a length or 'stretch', got {self.resize!r}.")
        elif self.resize is not None and (
            not _is_whole(self.resize) or self.resize < max(self.sides)
        ):
            raise ValueError(
                f"resize is the length of the shorter side from which {self.sides[0]} x "
                f"{self.sides[1]} pixels are cut, got {self.resize!r}."
            )
        if self.interpolation not in _INTERPOLATIONS:
            raise ValueError(
                f"interpolation is one of {', '.join(_INTERPOLATIONS)}, got {self.interpolation!r}."
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    def __call__(self, image: Image) -> Tensor:
        """Turns a picture into an input.

        Args:
            image (PIL.Image.Image): RGB.

        Returns:
            Tensor: 3 x H x W.
        """
        height, width = self.sides
        mode = InterpolationMode(self.interpolation)
        resized = F.resize(image, self._size_before_the_cut(image), mode, antialias=True)
        cut = F.center_crop(resized, [height, width])
        return cast(Tensor, F.normalize(F.to_tensor(cut), list(self.mean), list(self.std)))

    def changed(self, **values: Any) -> Preprocessing:
        """The same but for some values; with another image size, ``resize`` keeps its share.

        Args:
            **values (Any): Arguments of the class.

        Returns:
            Preprocessing: With these values.
        """
        if "image_size" in values and "resize" not in values and isinstance(self.resize, int):
            size = values["image_size"]
            longest = size if isinstance(size, int) else max(size)
            values["resize"] = round(self.resize * longest / max(self.sides))
        return replace(self, **values)

    def _size_before_the_cut(self, image: Image) -> list[int]:
        height, width = self.sides
        if self.resize == "stretch":
            return [height, width]
        if self.resize is not None:
            return [self.resize]
        if height == width:
            return [height]
        scale = max(height / image.height, width / image.width)
        return [max(height, round(image.height * scale)), max(width, round(image.width * scale))]


#: What torchvision's older weights were trained with, and most others since.
IMAGENET = Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256)

#: What there is to say about preprocessing, by the names of :class:`Preprocessing`.
_VALUES = tuple(field.name for field in fields(Preprocessing))
_NEEDED = ("image_size", "mean", "std")


def find_preprocess(
    given: Preprocess | str | dict[str, Any] | None, own: Preprocess | None, whose: str
) -> Preprocess:
    """The preprocessing of a network.

    Args:
        given (Callable, str, dict or None): What the user says: a function, "imagenet", the name
            of a function (``module:object``), or values of :class:`Preprocessing`, with what they
            change under "base".
        own (Callable or None): What the network comes with.
        whose (str): The network's name.

    Returns:
        Callable: A PIL image to C x H x W.

    Raises:
        ValueError: If there is none, or the values are not all that is needed.
    """
    if isinstance(given, dict):
        values = dict(given)
        base = values.pop("base", None)
        own = own if base is None else find_preprocess(base, own, whose)
        unknown = [name for name in values if name not in _VALUES]
        if unknown:
            raise ValueError(
                f"Unknown in the preprocessing: {', '.join(unknown)}; known are "
                f"{', '.join(('base', *_VALUES))}."
            )
        if isinstance(own, Preprocessing):
            return own.changed(**values)
        missing = [name for name in _NEEDED if name not in values]
        if missing and values:
            raise ValueError(
                f"{whose} has {'no preprocessing' if own is None else 'one of its own kind'}, so "
                f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing: give "
                "image_size, mean and std, or begin with 'imagenet' and change that."
            )
        given = Preprocessing(**values) if values else None
    if isinstance(given, str):
        return IMAGENET if given == "imagenet" else _named(given)
    found = given if given is not None else own
    if found is None:
        raise ValueError(
            f"{whose} does not say how pictures are prepared for it. Give --preprocess imagenet if "
            "it was trained like torchvision's networks (224 pixels, ImageNet's mean and standard "
            "deviation); or --image-size, --mean and --std; or --preprocess module:transform."
        )
    return found


def channel_statistics(preprocess: Preprocess) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Finds the mean that preprocessing takes off and the standard deviation that it divides by.

    Asked of the function itself: what it makes of a black, a grey and a white picture.

    Args:
        preprocess (Callable): A PIL image to C x H x W.

    Returns:
        tuple: Mean and standard deviation of each channel, of values in [0, 1].

    Raises:
        ValueError: If it does not take off a mean and divide by a standard deviation.

    Examples::

        >>> mean, std = channel_statistics(IMAGENET)
        >>> mean, std
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    """
    from PIL import Image

    black, grey, white = (
        preprocess(Image.new("RGB", (64, 64), (level,) * 3)).double() for level in (0, 51, 255)
    )
    scale = (white - black).amax((1, 2))
    expected = black + (white - black) * 51 / 255
    plain = all(one.amax((1, 2)).allclose(one.amin((1, 2)), atol=1e-3) for one in (black, white))
    if not plain or not (scale > 0).all() or not torch.allclose(grey, expected, atol=1e-3):
        raise ValueError(
            "The preprocessing does more to colours than to take off a mean and to divide by a "
            "standard deviation, so pictures cannot be shown as the network sees them. Give mean "
            "and std."
        )
    # float32 has seven digits, of which these are certain.
    mean = tuple(round(value, 6) for value in (-black.amax((1, 2)) / scale).tolist())
    return mean, tuple(round(value, 6) for value in (1 / scale).tolist())


def _named(reference: str) -> Preprocess:
    """The transform that a name stands for, or that its function or class makes."""
    found = find_object(reference)
    if inspect.isclass(found) or (callable(found) and not _takes_arguments(found)):
        try:
            found = found()
        except Exception as error:
            raise ValueError(f"{reference} failed: {one_line(error)}") from error
    if not callable(found):
        raise ValueError(
            f"{reference} is {type(found).__name__}; expected what turns a PIL image into C x H x "
            "W, or a function that makes it."
        )
    return cast(Preprocess, found)


def _takes_arguments(function: Callable[..., Any]) -> bool:
    try:
        return bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return True
