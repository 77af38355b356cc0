"""What every data set consists of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import normalize, to_tensor

from captum_groupcam.images import ImageError
from captum_groupcam.models import LoadedModel

__all__ = ["Dataset", "Sample", "Source", "existing_folder", "to_inputs"]


@dataclass(frozen=True, eq=False)
class Sample:
    """An image, a class that it shows, and where.

    Attributes:
        id (str): Names the image together with the class.
        image (PIL.Image.Image): The image, RGB.
        targets (tuple of int): The network's classes that the label stands for: one as a rule,
            several where a label is coarser than they are ("dog" and ImageNet's breeds). The
            likeliest of them is what there is to explain.
        label (str): Name of the label, by which accuracies are averaged.
        boxes (Tensor, optional): B x 4 boxes of the objects (x0, y0, x1, y1) in pixels of the
            image, ends exclusive, double precision. Default: None, unknown.
        masks (Tensor, optional): Where the objects are, instead of boxes: H x W, bool, in pixels of
            the image. Default: None.
        difficult (bool): Whether the sample is of the difficult subset. Default: False.
        file (Path, optional): The file that the image is from, by which a run notices that it has
            changed. Default: None, its pixels tell.
    """

    id: str
    image: Image.Image
    targets: tuple[int, ...]
    label: str
    boxes: Tensor | None = None
    masks: Tensor | None = None
    difficult: bool = False
    file: Path | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image, whose pixels the boxes count."""
        return self.image.height, self.image.width


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples, each loaded when its turn comes.

    Iteration passes over a sample that cannot be loaded, but with a warning, and notes it in
    `failures`.

    Attributes:
        loaders (mapping of str to Callable): For each sample, by its id, the function that loads
            it. It raises :class:`~captum_groupcam.images.ImageError` if it cannot.
        has_objects (bool): Whether samples know where their objects are. Default: True.
        left_out (mapping of str to int): How many annotations make no sample, by the rule that
            leaves them out. Default: none.
        failures (dict of str to str): Why samples could not be loaded, by their ids; of those that
            had their turn.
    """

    loaders: Mapping[str, Callable[[], Sample]]
    has_objects: bool = True
    left_out: Mapping[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of samples, those that cannot be loaded included."""
        return len(self.loaders)

    def __iter__(self) -> Iterator[Sample]:
        for name, load in self.loaders.items():
            try:
                sample = load()
            except ImageError as error:
                self.failures[name] = str(error)
                warnings.warn(f"Sample {name} is left out: {error}", stacklevel=2)
            else:
                yield sample

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

    def __call__(self, root: str | Path | None = None, n_classes: int = 1000) -> Dataset:
        """Finds the samples.

        Args:
            root (str or Path, optional): The folder of the data set. Default: None, for one that
                needs none.
            n_classes (int, optional): Number of the network's classes. Default: 1000, ImageNet's.
        """


def existing_folder(root: str | Path | None, content: str) -> Path:
    """The folder of a data set, or an error that says what it should contain."""
    if root is None:
        raise ValueError(f"This data set needs its folder (root): {content}.")
    if not Path(root).is_dir():
        raise ValueError(f"Expected a folder with {content}: there is no folder {root}.")
    return Path(root)


def to_inputs(samples: Sequence[Sample], model: LoadedModel) -> Tensor:
    """Turns images into what a network takes, none of it cut off.

    Each axis is resized (bicubic) to the size that the model's own preprocessing gives, and colours
    are normalised as the model wants. So boxes scale with the image; they are left as they are,
    since measures take the images' sizes beside them.

    Args:
        samples (sequence of Sample): N samples.
        model (LoadedModel): The network.

    Returns:
        Tensor: N x 3 x H x W, channels last, on the CPU.

    Raises:
        ValueError: If there are no samples.
    """
    if not samples:
        raise ValueError("Expected at least one sample, got none.")
    height, width = model.preprocess(Image.new("RGB", (64, 64))).shape[1:]
    resized = [
        to_tensor(sample.image.resize((width, height), Image.Resampling.BICUBIC))
        for sample in samples
    ]
    inputs: Tensor = normalize(torch.stack(resized), model.mean, model.std)
    return inputs.contiguous(memory_format=torch.channels_last)
