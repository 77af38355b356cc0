"""What every data set consists of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import normalize, to_tensor

from captum_groupcam.models import ImageClassifier

__all__ = ["Dataset", "LeftOut", "Sample", "Source", "existing_folder", "in_turn"]
__all__ += ["input_size", "printable", "to_inputs"]


@dataclass(frozen=True, eq=False)
class Sample:
    """An image, a class that it shows, and where; checked when it is made.

    Attributes:
        id (str): Names the image together with the class.
        image (PIL.Image.Image): The image, RGB.
        targets (tuple of int): The network's classes that the label stands for: one as a rule,
            several where a label is coarser than they are ("dog" and ImageNet's breeds), all of
            them where there is no label. The likeliest of them is what there is to explain.
        label (str): Name of the label, by which accuracies are averaged.
        boxes (Tensor, optional): B x 4 boxes of the objects (x0, y0, x1, y1) in pixels of the
            image, ends exclusive, double precision. Each has an area and lies in the image, at
            least in part. Default: None, unknown.
        masks (Tensor, optional): Where the objects are, instead of boxes: H x W, bool, in pixels of
            the image, not empty. Default: None.
        difficult (bool): Whether the sample is of the difficult subset. Default: False.
        file (Path, optional): The file that the image is from, by which a run notices that it has
            changed. Default: None, its pixels tell.
        as_it_is (bool): Whether the network gets the image at its own size, and not at that of the
            network's preprocessing. Default: False.

    Raises:
        ValueError: If something is not as described; the message names the sample.

    Examples::

        >>> Sample("a.jpg:dog", Image.new("RGB", (40, 30)), (), "dog")
        Traceback (most recent call last):
        ValueError: Sample a.jpg:dog has no class: expected at least one target.
    """

    id: str
    image: Image.Image
    targets: tuple[int, ...]
    label: str
    boxes: Tensor | None = None
    masks: Tensor | None = None
    difficult: bool = False
    file: Path | None = None
    as_it_is: bool = False

    def __post_init__(self) -> None:
        problem = _image_problem(self.image) or _targets_problem(self.targets)
        if problem is None and not isinstance(cast(object, self.label), str):
            problem = f"has the label {self.label!r}: expected text"
        if problem is None and self.boxes is not None and self.masks is not None:
            problem = "has boxes and masks, which might disagree: expected one of them"
        if problem is None and self.boxes is not None:
            problem = _boxes_problem(self.boxes, self.image.width, self.image.height)
        if problem is None and self.masks is not None:
            problem = _mask_problem(self.masks, self.image_size)
        if problem is not None:
            raise ValueError(f"Sample {printable(str(self.id))} {problem}.")

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image, whose pixels the boxes count."""
        return self.image.height, self.image.width


# What is wrong with a part of a sample, whatever its loader took for one; None if nothing is.


def _image_problem(image: object) -> str | None:
    if not isinstance(image, Image.Image):
        return f"has a {type(image).__name__} for an image: expected a PIL image"
    if image.mode != "RGB":
        return (
            f"has an image of mode {image.mode}: expected RGB, as image.convert('RGB') and "
            "captum_groupcam.images.open_image give it"
        )
    return None if min(image.size) else "has an image without pixels"


def _targets_problem(targets: object) -> str | None:
    if not isinstance(targets, tuple):
        return f"has the targets {targets!r}: expected a tuple of indices of classes"
    if not targets:
        return "has no class: expected at least one target"
    for target in targets:
        if not isinstance(target, (int, np.integer)) or isinstance(target, bool) or target < 0:
            return f"has the target {target!r}: expected the index of a class, from 0"
    return None


def _boxes_problem(boxes: object, width: int, height: int) -> str | None:
    if not isinstance(boxes, Tensor) or boxes.dim() != 2 or boxes.shape[1] != 4:
        found = tuple(boxes.shape) if isinstance(boxes, Tensor) else type(boxes).__name__
        return f"has boxes of shape {found}: expected a tensor, B x 4"
    if boxes.dtype == torch.bool or boxes.is_complex():
        return f"has boxes of {boxes.dtype}: expected numbers of pixels"
    if not len(boxes):
        return "has an empty list of boxes: expected at least one, or None if they are unknown"
    for box in boxes.tolist():
        x0, y0, x1, y1 = box
        what = f"has the box (x0, y0, x1, y1) = ({', '.join(f'{corner:g}' for corner in box)})"
        if not all(map(math.isfinite, box)):
            return f"{what}: expected finite numbers"
        if not (x0 < x1 and y0 < y1):
            return f"{what}, which has no area: expected x0 < x1 and y0 < y1"
        if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
            return f"{what}, of which nothing lies in its image of {width} x {height} pixels"
    return None


def _mask_problem(mask: object, image_size: tuple[int, int]) -> str | None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        return f"has a mask of {found}: expected a boolean tensor"
    if tuple(mask.shape) != image_size:
        return (
            f"has a mask of shape {tuple(mask.shape)}: expected that of its image, H x W = "
            f"{image_size[0]} x {image_size[1]}"
        )
    return None if mask.any() else "has an empty mask: expected at least one pixel of an object"


class LeftOut(Mapping[str, int]):
    """How many things make no sample, by reason, with the names of the first ones of each reason.

    Args:
        n_named (int, optional): How many names of a reason are kept. Default: 20.

    Examples::

        >>> left_out = LeftOut(n_named=2)
        >>> for name in ("a.jpg", "b.jpg", "c.jpg"):
        ...     left_out.add("box without area", name, 2)
        >>> dict(left_out), left_out.names("box without area")
        ({'box without area': 6}, ('a.jpg', 'b.jpg'))
        >>> left_out.lines()
        ['6: box without area (a.jpg, b.jpg, ...)']
        >>> left_out.lines(n_named=1)
        ['6: box without area (a.jpg, ...)']
        >>> left_out.named()
        {'box without area': ['a.jpg', 'b.jpg', '...']}
    """

    def __init__(self, n_named: int = 20) -> None:
        self._n_named = n_named
        self._counts: dict[str, int] = {}
        # A name more than are shown, which tells whether there are more.
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Counts things, and keeps their common name if it is among the first ones."""
        if not count:
            return
        reason, name = printable(reason), printable(name)
        self._counts[reason] = self._counts.get(reason, 0) + count
        names = self._names.setdefault(reason, [])
        if len(names) <= self._n_named and name not in names:
            names.append(name)

    def names(self, reason: str) -> tuple[str, ...]:
        """The names of the first things that a reason leaves out."""
        return tuple(self._names[reason][: self._n_named])

    def lines(self, n_named: int | None = None) -> list[str]:
        """A line for each reason: count, reason, names.

        Args:
            n_named (int, optional): How many names at most. Default: None, all that are kept.
        """
        named = self.named(n_named)
        return [f"{count}: {reason} ({', '.join(named[reason])})" for reason, count in self.items()]

    def named(self, n_named: int | None = None) -> dict[str, list[str]]:
        """The names by reason, and dots where there are more.

        Args:
            n_named (int, optional): As in :meth:`lines`.
        """
        n_shown = self._n_named if n_named is None else n_named
        return {
            reason: [*self.names(reason)[:n_shown], *["..."] * (len(names) > n_shown)]
            for reason, names in self._names.items()
        }

    def __getitem__(self, reason: str) -> int:
        return self._counts[reason]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        return f"LeftOut({self._counts})"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples, each loaded when its turn comes.

    Iteration passes over a sample that cannot be loaded, but with a warning, and notes it in
    `failures`.

    Attributes:
        loaders (mapping of str to Callable): For each sample, by its id, the function that loads
            it. It raises :class:`~captum_groupcam.images.ImageError`, or anything else, if it
            cannot.
        has_objects (bool): Whether samples know where their objects are. Default: True.
        left_out (LeftOut): How many annotations or files make no sample, by the rule that leaves
            them out, and the names of the first ones. Default: none.
        notes (sequence of str): What there is to say of how the data were read, where there was a
            choice. Default: none.
        about (mapping of str to str): What the report says of how the data were made. Rows belong
            together only where it is the same. Default: nothing.
        failures (dict of str to str): Why samples could not be loaded, by their ids; of those that
            had their turn.
    """

    loaders: Mapping[str, Callable[[], Sample]]
    has_objects: bool = True
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of samples, those that cannot be loaded included."""
        return len(self.loaders)

    def __iter__(self) -> Iterator[Sample]:
        for name in self.loaders:
            try:
                sample = self.load(name)
            except Exception as error:  # whatever it is, it is of this sample
                self.failures[name] = str(error) or type(error).__name__
                warnings.warn(f"Sample {name} is left out: {self.failures[name]}", stacklevel=2)
            else:
                yield sample

    def load(self, name: str) -> Sample:
        """Loads a sample.

        Args:
            name (str): Its id.

        Raises:
            ValueError: If its loader gives something else than the sample of this id.
            Exception: What the loader raises: an :class:`~captum_groupcam.images.ImageError` where
                a file is missing or damaged.
        """
        sample: object = self.loaders[name]()
        if not isinstance(sample, Sample):
            raise ValueError(
                f"The loader of sample {name} gives a {type(sample).__name__}: expected a Sample."
            )
        if sample.id != name:
            raise ValueError(
                f"The loader of sample {name} gives the sample {sample.id}: expected the same id, "
                "by which rows are kept."
            )
        return sample

    def part(self, which: slice) -> Dataset:
        """Some of the samples, those that cannot be loaded included; nothing is loaded.

        Args:
            which (slice): Which, as of a list: ``slice(0, None, 2)`` is every other one, the first
                among them.
        """
        chosen = list(self.loaders)[which]
        loaders = {name: self.loaders[name] for name in chosen}
        return replace(self, loaders=loaders, failures={})

    def limit(self, n: int) -> Dataset:
        """The first samples: :meth:`part` up to `n`."""
        return self.part(slice(n))


class Source(Protocol):
    """What finds a data set."""

    def __call__(
        self, root: str | Path | None = None, class_names: Sequence[str] | None = None
    ) -> Dataset:
        """Finds the samples.

        Args:
            root (str or Path, optional): The folder of the data set. Default: None, for one that
                needs none.
            class_names (sequence of str, optional): A name for each class of the network. Default:
                None, ImageNet's 1000.
        """


def existing_folder(root: str | Path | None, content: str) -> Path:
    """The folder of a data set, or an error that says what it should contain."""
    if root is None:
        raise ValueError(f"This data set needs its folder (--root FOLDER): {content}.")
    if not Path(root).is_dir():
        raise ValueError(f"Expected a folder with {content}: there is no folder {root}.")
    return Path(root)


def in_turn(
    groups: Iterable[Sequence[tuple[str, Callable[[], Sample]]]], left_out: LeftOut
) -> dict[str, Callable[[], Sample]]:
    """Names and loaders of which each group gives one in turn, so that the first are of all."""
    loaders: dict[str, Callable[[], Sample]] = {}
    for one in chain.from_iterable(zip_longest(*groups)):
        if one is not None and one[0] in loaders:
            left_out.add("another sample has the same name", one[0])
        elif one is not None:
            loaders[one[0]] = one[1]
    return loaders


def printable(text: str) -> str:
    r"""A name as a terminal or a file takes it: what cannot be printed is escaped.

    Examples::

        >>> printable("caf\u00e9\x1b[31m.jpg")
        'café\\x1b[31m.jpg'
    """
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def input_size(model: ImageClassifier) -> tuple[int, int]:
    """Height and width of what a network's own preprocessing gives."""
    height, width = model.preprocess(Image.new("RGB", (64, 64))).shape[1:]
    return height, width


def to_inputs(samples: Sequence[Sample], model: ImageClassifier) -> Tensor:
    """Turns images into what a network takes, none of it cut off.

    Each axis is resized (bicubic) to the size that the model's own preprocessing gives, but for
    samples that the network gets as they are, and colours are normalised as the model wants. So
    boxes scale with the image; they are left as they are,
    since measures take the images' sizes beside them.

    Args:
        samples (sequence of Sample): N samples.
        model (ImageClassifier): The network.

    Returns:
        Tensor: N x 3 x H x W, channels last, on the CPU.

    Raises:
        ValueError: If there are no samples.
    """
    if not samples:
        raise ValueError("Expected at least one sample, got none.")
    height, width = input_size(model)
    resized = [
        to_tensor(
            sample.image
            if sample.as_it_is
            else sample.image.resize((width, height), Image.Resampling.BICUBIC)
        )
        for sample in samples
    ]
    inputs: Tensor = normalize(torch.stack(resized), model.mean, model.std)
    return inputs.contiguous(memory_format=torch.channels_last)
