"""Kinds of things that go wrong with a sample, a method, a measure or a network, by name."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_groupcam.images import ImageError

from ...data import Sample
from .toys import N_CLASSES

__all__ = [
    "BOXES",
    "FINE_MAPS",
    "IMAGES",
    "LABELS",
    "LOADERS",
    "MAPS",
    "MASKS",
    "ODD",
    "PASSES",
    "RAISED",
]
__all__ += ["SCORES", "Spoil"]

#: Takes a good sample, and gives what a loader returns, or raises.
Spoil = Callable[[Sample], Any]

#: What is raised, in loaders and methods.
RAISED: tuple[Exception, ...] = (
    OSError(5, "Input/output error"),
    FileNotFoundError(2, "No such file or directory", "a.jpg"),
    PermissionError(13, "Permission denied", "a.jpg"),
    TimeoutError("the disk does not answer"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory."),
    KeyError("bbox"),
    IndexError("list index out of range"),
    AttributeError("'NoneType' object has no attribute 'size'"),
    TypeError("unsupported operand"),
    ValueError("not enough values to unpack"),
    RuntimeError("shape mismatch"),
    RecursionError("maximum recursion depth exceeded"),
    NotImplementedError(),
    AssertionError(),
    ZeroDivisionError("division by zero"),
    OverflowError("too large"),
    EOFError(),
    StopIteration(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    struct.error("unpack requires a buffer of 4 bytes"),
    zlib.error("incorrect header check"),
    ImageError("a.jpg: cannot be read as an image"),
    Exception("an error without a class of its own"),
)


def raising(error: Exception) -> Callable[..., NoReturn]:
    """What raises an error, whatever it is given."""

    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    return fail


def _raising_each(what: str) -> dict[str, Callable[..., NoReturn]]:
    kinds = {f"{type(error).__module__}.{type(error).__name__}": error for error in RAISED}
    return {
        f"{what} that raises {name.removeprefix('builtins.')}": raising(error)
        for name, error in kinds.items()
    }


def _changed(**changes: Any) -> Spoil:
    return lambda sample: replace(sample, **changes)


def _boxes(*boxes: tuple[float, ...]) -> Spoil:
    return _changed(boxes=torch.tensor(boxes, dtype=torch.float64))


def _masks(make: Callable[[int, int], Any]) -> Spoil:
    return lambda sample: replace(sample, boxes=None, masks=make(*sample.image_size))


def _image(make: Callable[[Image.Image], Any]) -> Spoil:
    return lambda sample: replace(sample, image=make(sample.image))


LOADERS: Mapping[str, Spoil] = {
    **_raising_each("a loader"),
    "a loader that returns None": lambda _: None,
    "a loader that returns a tuple": lambda sample: (sample.image, sample.targets),
    "a loader that returns another sample": _changed(id="another"),
}
LABELS: Mapping[str, Spoil] = {
    "no class": _changed(targets=()),
    "a class out of range": _changed(targets=(N_CLASSES,)),
    "one class of two out of range": _changed(targets=(0, 10**6)),
    "a negative class": _changed(targets=(-1,)),
    "a class that is a fraction": _changed(targets=(1.5,)),
    "a class that is NaN": _changed(targets=(math.nan,)),
    "a class that is True": _changed(targets=(True,)),
    "classes that are None": _changed(targets=None),
    "a label that is None": _changed(label=None),
    "a label that is a number of NumPy": _changed(label=np.int64(3)),
}
IMAGES: Mapping[str, Spoil] = {
    "no image": _image(lambda _: None),
    "an array for an image": _image(np.asarray),
    "a grey image": _image(lambda image: image.convert("L")),
    "an image with transparency": _image(lambda image: image.convert("RGBA")),
    "an image in 16 bits": _image(lambda image: image.convert("L").convert("I;16")),
    "an image without pixels": _image(lambda image: image.resize((8, 8)).crop((3, 3, 3, 8))),
}
BOXES: Mapping[str, Spoil] = {
    "a box outside of the picture": _boxes((60, 60, 70, 70)),
    "a box above the picture": _boxes((-20, -20, -10, -10)),
    "a box without area": _boxes((10, 10, 10, 20)),
    "a flipped box": _boxes((20, 30, 4, 4)),
    "a box of NaN": _boxes((math.nan, 4, 20, 30)),
    "an infinite box": _boxes((-math.inf, -math.inf, math.inf, math.inf)),
    "no box": _changed(boxes=torch.empty(0, 4, dtype=torch.float64)),
    "a box of three numbers": _boxes((1, 2, 3)),
    "boxes that are a list": _changed(boxes=[[4, 4, 20, 30]]),
    "boxes and masks": _changed(masks=torch.ones(48, 40, dtype=torch.bool)),
}
MASKS: Mapping[str, Spoil] = {
    "an empty mask": _masks(lambda *size: torch.zeros(size, dtype=torch.bool)),
    "a mask of three dimensions": _masks(lambda *size: torch.ones(1, *size, dtype=torch.bool)),
    "a mask of one dimension": _masks(lambda height, width: torch.ones(height * width) > 0),
    "a mask without pixels": _masks(lambda height, width: torch.ones(0, width) > height),
    "a mask that is an array": _masks(lambda *size: np.ones(size, dtype=bool)),
    "a mask that is a list": _masks(lambda height, width: [[True] * width] * height),
}
#: What is unusual, and may be measured or fail.
ODD: Mapping[str, Spoil] = {
    "a class that is a number of NumPy": _changed(targets=(np.int64(1),)),
    "a box that is the picture": _boxes((0, 0, 40, 48)),
    "a box that is larger than the picture": _boxes((-1e6, -1e6, 1e6, 1e6)),
    "a box that is a thousandth of a pixel": _boxes((10, 10, 10.001, 10.001)),
    "a mask of one pixel of 640 x 480": lambda sample: replace(
        sample,
        image=sample.image.resize((640, 480)),
        boxes=None,
        masks=torch.arange(640 * 480).view(480, 640) == 1234,
    ),
    "a picture of one pixel": lambda sample: replace(
        sample, image=sample.image.resize((1, 1)), boxes=None, masks=torch.ones(1, 1) > 0
    ),
    "a picture of one colour": _image(lambda image: Image.new("RGB", image.size, "white")),
    "neither boxes nor masks": _changed(boxes=None),
}


def _of_ones(*shape: int) -> Callable[..., Tensor]:
    return lambda inputs, _: torch.ones(len(inputs), *shape)


#: What methods return that is no map, or raise, from inputs and target.
MAPS: Mapping[str, Callable[..., Any]] = {
    **_raising_each("a method"),
    "a map of NaN": lambda inputs, _: inputs[:, :1] * math.nan,
    "an infinite map": lambda inputs, _: inputs[:, :1] / 0,
    "a map of three channels": lambda inputs, _: inputs,
    "a map without channels": lambda inputs, _: inputs[:, 0],
    "a map of half the size": _of_ones(1, 16, 16),
    "a map of one number": _of_ones(),
    "two maps for one": lambda inputs, _: inputs[:, :1].repeat(2, 1, 1, 1),
    "a map that is an array": lambda inputs, _: inputs[:, :1].numpy(),
    "a map that is a list": lambda inputs, _: inputs[:, :1].tolist(),
    "a map in a tuple": lambda inputs, _: (inputs[:, :1],),
    "a map that is None": lambda _, __: None,
    "a complex map": lambda inputs, _: inputs[:, :1] * 1j,
    "a sparse map": lambda inputs, _: inputs[:, :1].to_sparse(),
    "a map on no device": lambda inputs, _: inputs[:, :1].to("meta"),
}
#: What methods return that is unusual and is a map nevertheless.
FINE_MAPS: Mapping[str, Callable[..., Tensor]] = {
    "a map that requires a gradient": lambda inputs, _: inputs[:, :1].requires_grad_() * 2,
    "a map of integers": lambda inputs, _: (inputs[:, :1] * 9).to(torch.int64),
    "a map of True and False": lambda inputs, _: inputs[:, :1] > 0,
    "a map in half precision": lambda inputs, _: inputs[:, :1].half(),
    "a map in double precision": lambda inputs, _: inputs[:, :1].double(),
    "a map that is a parameter": lambda inputs, _: torch.nn.Parameter(inputs[:, :1]),
}
#: What measures compute of a sample that is not one number, or raise.
SCORES: Mapping[str, Callable[..., Any]] = {
    **_raising_each("a measure"),
    "a score of NaN": lambda _: torch.tensor([math.nan]),
    "an infinite score": lambda _: torch.tensor([math.inf]),
    "a vector for a score": lambda _: torch.ones(1, 3),
    "two scores for a sample": lambda _: torch.ones(2),
    "no score": lambda _: torch.ones(0),
    "two values for one score": lambda _: (torch.ones(1), torch.ones(1)),
    "a score that is None": lambda _: None,
    "a score that is a float": lambda _: 0.5,
    "a score that is an array": lambda _: np.ones(1),
}


def _out_of_memory_in_batches(inputs: Tensor, outputs: Tensor) -> Tensor:
    if len(inputs) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    return outputs


#: What a network does with a sample, from inputs and outputs.
PASSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a network that raises": raising(RuntimeError("an operator that is not implemented")),
    "memory that runs out at the first pass": raising(torch.OutOfMemoryError("out of memory")),
    "memory that runs out while a pass is timed": _out_of_memory_in_batches,
    "scores of NaN": lambda _, outputs: outputs * math.nan,
    "infinite scores": lambda _, outputs: outputs / 0,
}
