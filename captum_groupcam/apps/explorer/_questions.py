"""What the explorer computes, apart from its page: questions about a photo, and their answers."""

from __future__ import annotations

import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from captum_groupcam.analysis.uncertainty import scored_masks, standard_error
from captum_groupcam.apps.explorer._networks import Models, OnQuery, watched
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.images import ImageError, open_image, sample_images
from captum_groupcam.methods import find_method
from captum_groupcam.metrics.functional import (
    DeletionInsertionProtocol,
    DeletionInsertionResult,
    deletion_insertion,
)
from captum_groupcam.models import ImageClassifier

__all__ = [
    "Explanation",
    "Groups",
    "Photo",
    "Question",
    "Stopped",
    "View",
    "explain",
    "groups_of",
    "look",
    "measure",
    "value_at",
]


#: Pixels along each side that a photo has on the page at most.
THUMBNAIL = 480
#: Photographs of all pages are decoded in one thread: the allocator of memory keeps what is freed
#: for the thread that had it, and decoding takes hundreds of megabytes.
_DECODING = ThreadPoolExecutor(1, "decoding")


class Stopped(Exception):  # noqa: N818  what was asked for is no error
    """A computation ends before it is done; the message says why."""


@dataclass(frozen=True, eq=False)
class Photo:
    """An image, and how a program gets at it. Decoded it can take 200 MB, so it is not kept so.

    Attributes:
        name (str): Its file's name, or that of one of
            :func:`~captum_groupcam.images.sample_images`.
        path (Path, optional): Where the file is. Default: None, it is a sample.
    """

    name: str
    path: Path | None = None

    @property
    def is_sample(self) -> bool:
        """Whether it is one of :func:`~captum_groupcam.images.sample_images`."""
        return self.path is None

    def open(self) -> Image.Image:
        """Decodes it, as RGB.

        Raises:
            ImageError: If it is damaged, no image, or too large.
        """
        if self.path is None:
            return sample_images()[self.name]()
        try:
            return open_image(self.path)
        except ImageError as error:
            # Where it is kept is nobody's business.
            raise ImageError(str(error).replace(str(self.path), self.name)) from error

    def remove(self) -> None:
        """Removes its file, with the folder that is only for it."""
        if self.path is not None:
            shutil.rmtree(self.path.parent, ignore_errors=True)


@dataclass(frozen=True, eq=False)
class View:
    """A photo as a network sees it: what is kept of a photo.

    Attributes:
        photo (Photo): The photo.
        model (str): The network's name in :class:`~captum_groupcam.apps.explorer._networks.Models`.
        thumbnail (PIL.Image.Image): The photo, at most :data:`THUMBNAIL` pixels a side.
        inputs (Tensor): What the network takes, 1 x 3 x H x W, on the CPU.
        shown (Tensor): The same as an image, 3 x H x W in [0, 1].
        classes (Tensor): Indices of all classes, the likeliest first.
        probabilities (Tensor): Their probabilities, in the same order.
    """

    photo: Photo
    model: str
    thumbnail: Image.Image
    inputs: Tensor
    shown: Tensor
    classes: Tensor
    probabilities: Tensor

    @property
    def ranked(self) -> list[tuple[int, float]]:
        """Indices and probabilities of all classes, the likeliest first."""
        return list(zip(self.classes.tolist(), self.probabilities.tolist(), strict=True))

    def probability_of(self, target: int) -> float:
        """What the network gives a class."""
        return float(self.probabilities[self.classes == target])


@dataclass(frozen=True, eq=False)
class Question:
    """Which part of a photo makes a network decide for a class?

    Attributes:
        view (View): The photo and the network.
        layer (str): Dotted name of a layer; "" is the one that the model comes with.
        target (int): Index of the class.
        method (str): A name in :data:`~captum_groupcam.methods.METHODS`.
        options (dict of str to value): The method's options that are not at their defaults.
    """

    view: View
    layer: str
    target: int
    method: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Explanation:
    """An answer.

    Attributes:
        question (Question): What was asked.
        class_name (str): Name of the class.
        probability (float): What the network gives it.
        attribution (Tensor): The map, 1 x H x W.
        queries (int): How many images the network was asked about.
        warnings (tuple of str): What the method warned of.
    """

    question: Question
    class_name: str
    probability: float
    attribution: Tensor
    queries: int
    warnings: tuple[str, ...]

    @property
    def shown(self) -> Tensor:
        """What the network saw, 3 x H x W in [0, 1]."""
        return self.question.view.shown


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of channels that a map was merged of.

    Attributes:
        masks (Tensor): What each shows of the image, G x H x W in [0, 1].
        scores (Tensor): What each adds to the score of the class, G.
        standard_error (Tensor): Of each pixel of the map, 1 x H x W; see
            :func:`~captum_groupcam.analysis.uncertainty.standard_error`.
    """

    masks: Tensor
    scores: Tensor
    standard_error: Tensor


def look(models: Models, photo: Photo, name: str) -> View:
    """Shows a photo to a network.

    Args:
        models (Models): Where the network is.
        photo (Photo): The photo.
        name (str): The network's name.

    Raises:
        ImageError: If the photo cannot be read.
        ValueError: If there is no such network.
    """
    model = models.load(name)
    inputs, thumbnail = _DECODING.submit(_reduced, photo, model).result()
    probabilities, classes = model.classify(inputs)
    return View(
        photo=photo,
        model=name,
        thumbnail=thumbnail,
        inputs=inputs.cpu(),
        shown=model.denormalize(inputs)[0].cpu(),
        classes=classes[0].cpu(),
        probabilities=probabilities[0].cpu(),
    )


def _reduced(photo: Photo, model: ImageClassifier) -> tuple[Tensor, Image.Image]:
    """What a network takes of a photo, and its thumbnail."""
    image = photo.open()
    inputs = model.prepare(image)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return inputs, image


def explain(models: Models, question: Question, on_query: OnQuery = lambda _: None) -> Explanation:
    """Answers a question.

    Args:
        models (Models): Where its model is.
        question (Question): What is asked.
        on_query (Callable, optional): See :data:`OnQuery`. Default: does nothing.

    Raises:
        ValueError: If there is no such class, or the method cannot answer: an option is out of
            range, the layer has no positions, ...
    """
    model = models.asked(question.view.model, question.layer)
    if question.target not in range(len(model.class_names)):
        raise ValueError(
            f"There is no class {question.target}: {model.name} has {len(model.class_names)} "
            "classes."
        )
    with (
        watched(model.network, on_query) as queries,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        inputs = question.view.inputs.to(model.device)
        maps = model.explain(question.method, inputs, question.target, **question.options)
        attribution = maps[0].cpu()
    return Explanation(
        question=question,
        class_name=model.class_names[question.target],
        probability=question.view.probability_of(question.target),
        attribution=attribution,
        queries=queries(),
        warnings=tuple(str(warning.message) for warning in caught),
    )


def groups_of(
    models: Models, explanation: Explanation, on_query: OnQuery = lambda _: None
) -> Groups:
    """Finds the groups behind an answer, at the same price.

    Args:
        models (Models): Where its model is.
        explanation (Explanation): The answer of a method that is
            :attr:`~captum_groupcam.methods.Method.grouped`.
        on_query (Callable, optional): See :data:`OnQuery`. Default: does nothing.
    """
    question = explanation.question
    model = models.asked(question.view.model, question.layer)
    with watched(model.network, on_query):
        scored = scored_masks(
            GroupCAM(model.network, model.layer.module),
            question.view.inputs.to(model.device),
            question.target,
            **model.layer.keywords,
            **find_method(question.method).fixed,
            **question.options,
        )
    masks, scores = scored.of_sample(0)
    error = standard_error(
        scored.masks,
        scored.scores,
        scored.size,
        normalized=question.options.get("merge_normalized", True),
    )
    return Groups(masks.cpu(), scores.cpu(), error[0].cpu())


def measure(
    models: Models,
    explanation: Explanation,
    step: float = 0.01,
    on_query: OnQuery = lambda _: None,
) -> DeletionInsertionResult:
    """Measures deletion and insertion of an answer, with the paper's blurred image.

    Args:
        models (Models): Where its model is.
        explanation (Explanation): The answer.
        step (float, optional): Share of the pixels replaced at a time. Default: 0.01, the paper's.
        on_query (Callable, optional): See :data:`OnQuery`. Default: does nothing.
    """
    question = explanation.question
    model = models.asked(question.view.model)
    with watched(model.network, on_query):
        return deletion_insertion(
            model.network,
            explanation.attribution.unsqueeze(0).to(model.device),
            question.view.inputs.to(model.device),
            question.target,
            protocol=DeletionInsertionProtocol(step=step),
        )


def value_at(explanation: Explanation, x: int, y: int) -> str:
    """Says what the map is at a pixel.

    Args:
        explanation (Explanation): The answer.
        x (int): Column, from the left.
        y (int): Row, from the top.

    Raises:
        ValueError: If there is no such pixel.
    """
    values = explanation.attribution[0]
    height, width = values.shape
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"There is no pixel {x}, {y} in a map of {width} x {height}.")
    value = float(values[y, x])
    below = float((values < value).float().mean())
    return (
        f"x = {x}, y = {y}: {value:.4g}, higher than {below:.0%} of the map. Its largest value is "
        f"{float(values.max()):.4g}."
    )
