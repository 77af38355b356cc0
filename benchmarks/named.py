"""Measures and data sets of one's own, by the name of what makes them.

Nothing of the benchmark has to be imported for one: a measure is a function with a direction, a
data set what a ``DataLoader`` takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from captum_groupcam.naming import find_object, is_reference, one_line, short_reference

from .data import DATASETS, Dataset, Sample
from .measures.registry import MEASURES, Measure

__all__ = ["load_dataset", "load_measure", "map_style"]

#: What the directions and needs of a measure that is a function are called, as attributes of it.
_DIRECTION, _NEEDS = "higher_is_better", "needs"
#: Items of a data set of PyTorch that are read to see what it holds: until one can be.
_LOOKED_AT = 20


def load_measure(name: str) -> str:
    """Imports a measure of one's own and puts it into ``MEASURES``; other names stay as they are.

    Args:
        name (str): ``package.module:object`` or ``path/file.py:object``: a
            :class:`~benchmarks.measures.registry.Measure`, or a function of
            :class:`~benchmarks.measures.explained.Explained` that gives a value for each sample,
            with an attribute ``higher_is_better``, and ``needs`` if it needs more than maps.

    Returns:
        str: The name of the measure, without the folders of a file.

    Raises:
        ValueError: If there is no such object, it fails, or is not a measure.
    """
    if not is_reference(name):
        return name
    found, short = find_object(name), short_reference(name)
    if isinstance(found, Measure):
        measure = found
    elif callable(found) and not inspect.isclass(found):
        direction = getattr(found, _DIRECTION, None)
        if not isinstance(direction, bool):
            raise ValueError(
                f"{name} does not say which direction is better: set "
                f"{name.rpartition(':')[2]}.{_DIRECTION} = True or False."
            )
        needs = getattr(found, _NEEDS, ())
        unknown = set(needs) - {"model", "objects", "explain"}
        if unknown:
            raise ValueError(
                f"{name} needs {', '.join(sorted(unknown))}: known are model, objects and explain."
            )
        measure = Measure(
            name=short,
            category=getattr(found, "category", "faithfulness"),
            higher_is_better={short: direction},
            compute=found,
            source=getattr(found, "source", ""),
            needs=frozenset(needs),
        )
    else:
        raise ValueError(
            f"{name} is not a measure but {type(found).__name__}: expected a function of what was "
            "explained, or a Measure."
        )
    if MEASURES.setdefault(short, measure).compute is not measure.compute:
        raise ValueError(f"Another measure is called {short}, too: rename one of the files.")
    return short


def load_dataset(name: str) -> str:
    """Imports a data set of one's own and puts it into ``DATASETS``; other names stay as they are.

    Args:
        name (str): ``package.module:object`` or ``path/file.py:object``: a function of the root
            folder and of the names of the network's classes (it may take fewer) that gives a
            :class:`~benchmarks.data.Dataset` or a data set of PyTorch; or one of these.

    Returns:
        str: The name of the data set, without the folders of a file.

    Raises:
        ValueError: If there is no such object, or it cannot be called so.
    """
    if not is_reference(name):
        return name
    found, short = find_object(name), short_reference(name)
    if _is_map_style(found) or isinstance(found, Dataset):
        make: Callable[..., Any] = lambda: found  # noqa: E731
    elif callable(found):
        make = found
    else:
        raise ValueError(
            f"{name} is not a data set but {type(found).__name__}: expected one of PyTorch, or a "
            "function that makes it."
        )
    _arguments(make, name, None, None)

    def source(root: str | Path | None = None, class_names: Sequence[str] | None = None) -> Dataset:
        return _made(make, name, root, class_names)

    DATASETS[short] = source
    return short


def map_style(
    dataset: Sequence[Any] | torch.utils.data.Dataset[Any], class_names: Sequence[str] | None = None
) -> Dataset:
    """A data set of PyTorch as one of the benchmark.

    Args:
        dataset (sequence or torch.utils.data.Dataset): Each item is an image and its class. The
            image is a PIL image, a tensor (C x H x W) or an array (H x W x C) of bytes or of values
            in [0, 1], as it is before a network's preprocessing. The class is an index; or a
            mapping with ``label`` and, where they are known, ``boxes`` (B x 4, x0, y0, x1, y1 in
            pixels, ends exclusive) or ``mask`` (H x W) of its objects.
        class_names (sequence of str, optional): A name for each class of the network. Default:
            None, numbers.

    Returns:
        Dataset: A sample for each item, named by its index.

    Raises:
        ValueError: If it is empty, or none of its first items is of this form.

    Examples::

        >>> squares = [(Image.new("RGB", (40, 30)), 1), (Image.new("L", (20, 20)), 0)]
        >>> data = map_style(squares, ["cat", "dog"])
        >>> [(sample.id, sample.label, sample.image.mode) for sample in data]
        [('0', 'dog', 'RGB'), ('1', 'cat', 'RGB')]
    """
    length = len(cast(Sequence[Any], dataset))
    first = _first(dataset, length, class_names)
    return Dataset(
        {str(index): partial(_sample, dataset, index, class_names) for index in range(length)},
        has_objects=first.boxes is not None or first.masks is not None,
    )


def _first(dataset: Any, length: int, class_names: Sequence[str] | None) -> Sample:
    """The first sample that can be read; each of the others is a failure when its turn comes."""
    failure: Exception | None = None
    for index in range(min(length, _LOOKED_AT)):
        try:
            return _sample(dataset, index, class_names)
        except Exception as error:  # it is the user's
            failure = failure or error
    raise failure or ValueError("The data set is empty.")


def _made(
    make: Callable[..., Any],
    name: str,
    root: str | Path | None,
    class_names: Sequence[str] | None,
) -> Dataset:
    arguments = _arguments(make, name, root, class_names)
    try:
        found = make(*arguments)
        if isinstance(found, Dataset):
            return found
        if _is_map_style(found):
            return map_style(found, class_names)
    except Exception as error:  # it is the user's
        raise ValueError(f"{name} failed: {one_line(error)}") from error
    raise ValueError(
        f"{name} gives {type(found).__name__}; expected a data set of PyTorch, with a length and "
        "items (image, class)."
    )


def _arguments(
    make: Callable[..., Any],
    name: str,
    root: str | Path | None,
    class_names: Sequence[str] | None,
) -> tuple[Any, ...]:
    """As many of the root folder and the names of the classes as a function takes."""
    signature = inspect.signature(make)
    for given in ((root, class_names), (root,), ()):
        try:
            signature.bind(*given)
        except TypeError:
            continue
        return given
    raise ValueError(f"{name} must take (root, class_names), (root) or nothing, not {signature}.")


def _is_map_style(found: object) -> bool:
    return (
        hasattr(found, "__getitem__") and hasattr(found, "__len__") and not inspect.isclass(found)
    )


def _sample(dataset: Any, index: int, class_names: Sequence[str] | None) -> Sample:
    item, what = dataset[index], f"item {index} of the data set"
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise ValueError(f"Expected {what} to be (image, class), got {type(item).__name__}.")
    image, about = item
    boxes = masks = None
    if isinstance(about, Mapping):
        if "boxes" in about:
            boxes = torch.as_tensor(about["boxes"], dtype=torch.float64)
        if "mask" in about:
            masks = torch.as_tensor(about["mask"]).bool().squeeze()
        about = about.get("label")
    try:
        label = int(cast(Any, about))
        if label != about:
            raise ValueError
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"Expected an index for the class of {what}, got {about!r}.") from None
    name = str(label) if class_names is None or label >= len(class_names) else class_names[label]
    return Sample(str(index), _image(image, what), (label,), name, boxes, masks)


def _image(image: Any, what: str) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if not isinstance(image, (Tensor, np.ndarray)):
        raise ValueError(f"Expected a PIL image in {what}, got {type(image).__name__}.")
    if image.dtype not in (torch.uint8, np.uint8) and (image.min() < 0 or image.max() > 1):
        raise ValueError(
            f"The image of {what} has values from {float(image.min()):.3g} to "
            f"{float(image.max()):.3g}: expected it as it is before a network's preprocessing, "
            "in [0, 1] or bytes."
        )
    picture: Image.Image = to_pil_image(image)
    return picture.convert("RGB")
