"""Pictures for fine-tuning: the same ones in the same order, however many processes share them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from captum_groupcam.images import open_image
from captum_groupcam.models import ImageClassifier

from ...data.imagenet import wordnet_ids

__all__ = ["Batch", "Pictures", "class_indices", "derived_seed", "image_folder", "shuffled"]

#: Images, labels, and where they stand in the data set.
Batch = tuple[Tensor, Tensor, Tensor]


def derived_seed(*numbers: int) -> int:
    """One seed of several numbers, such that neighbours have nothing in common."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def shuffled(n_samples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch's samples."""
    return np.random.default_rng([seed, epoch]).permutation(n_samples)


@dataclass(frozen=True)
class Pictures(Dataset[tuple[Tensor, int, int]]):
    """One half of the data, prepared for a network.

    Attributes:
        folder (ImageFolder): Pictures in one folder for each class.
        labels (sequence of int): The network's output for each class of the folder.
        transform (Callable): Turns a picture into C x H x W.
        seed (int or None): Seed of what the transform draws, together with a picture's number.
    """

    folder: ImageFolder
    labels: Sequence[int]
    transform: Callable[[Image.Image], Tensor]
    seed: int | None = None

    @classmethod
    def training(
        cls, folder: ImageFolder, model: ImageClassifier, labels: Sequence[int], seed: int
    ) -> Pictures:
        """Random crops and flips, as the paper's authors train (and everybody on ImageNet)."""
        height, width = model.prepare(Image.new("RGB", (64, 64))).shape[2:]
        return cls(
            folder,
            labels,
            transforms.Compose(
                [
                    transforms.RandomResizedCrop((height, width)),
                    transforms.RandomHorizontalFlip(),
                    transforms.ToTensor(),
                    transforms.Normalize(model.mean, model.std),
                ]
            ),
            seed,
        )

    @classmethod
    def validation(
        cls, folder: ImageFolder, model: ImageClassifier, labels: Sequence[int]
    ) -> Pictures:
        """As the network's preprocessing has them."""
        return cls(folder, labels, model.preprocess)

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        image, label = self.folder[index]
        # A picture's draws are its own: no matter which process or worker loads it, and when.
        with torch.random.fork_rng(devices=()):
            if self.seed is not None:
                torch.default_generator.manual_seed(derived_seed(self.seed, index))
            return self.transform(image), self.labels[label], index

    @property
    def names(self) -> list[str]:
        """The name of each picture: its class's folder and its file."""
        return [f"{Path(path).parent.name}/{Path(path).name}" for path, _ in self.folder.samples]

    def some_of_each_class(self, count: int | None, seed: int) -> np.ndarray:
        """So many pictures of each class, drawn at random, or all.

        Raises:
            ValueError: If a class has fewer.
        """
        targets = np.array(self.folder.targets)
        if count is None:
            return np.arange(len(targets))
        rng = np.random.default_rng([seed])
        members = [np.flatnonzero(targets == index) for index in range(len(self.folder.classes))]
        smallest = min(map(len, members))
        if count > smallest:
            raise ValueError(
                f"{count} pictures of each class were asked for; one class has {smallest}."
            )
        return np.sort(np.concatenate([rng.choice(m, count, replace=False) for m in members]))

    def batches(self, order: Iterable[int], size: int, workers: int) -> DataLoader[Any]:
        """Loads pictures in an order, so many at a time."""
        return DataLoader(
            self, batch_size=size, sampler=[int(i) for i in order], num_workers=workers
        )


def image_folder(root: Path) -> ImageFolder:
    """Pictures in one folder for each class.

    Raises:
        ValueError: If it is no such folder.
    """
    try:
        return ImageFolder(str(root), loader=open_image)
    except FileNotFoundError as error:
        raise ValueError(
            f"{root} is not a folder with pictures in one folder for each class: {error}"
        ) from error


def class_indices(model: ImageClassifier, classes: Sequence[str]) -> list[int]:
    """The network's output for each class of a data set.

    Args:
        model (ImageClassifier): The network with its class names.
        classes (sequence of str): Names as the network has them, or WordNet ids of ImageNet
            (``n01440764``).

    Raises:
        ValueError: If a class is unknown to the network.
        ModuleNotFoundError: If WordNet ids are needed and the package that lists them is missing.
    """
    known = {name: index for index, name in enumerate(model.class_names)}
    if not set(classes) <= known.keys():
        known |= {name: index for index, name in enumerate(wordnet_ids())}
    unknown = [name for name in classes if name not in known]
    if unknown or max(known[name] for name in classes) >= len(model.class_names):
        raise ValueError(
            f"{model.name} does not know the classes {', '.join(unknown or classes)}: expected "
            "names of its own or WordNet ids of ImageNet's 1000. Replace its head for others."
        )
    return [known[name] for name in classes]
