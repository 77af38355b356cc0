"""What the explorer computes, apart from its page: questions about a photo, and their answers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from captum_groupcam.analysis.uncertainty import scored_masks, standard_error
from captum_groupcam.apps.explorer._networks import Models, OnQuery, classify, watched
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.images import open_image, sample_images
from captum_groupcam.methods import find_method
from captum_groupcam.metrics.functional import (
    DeletionInsertionProtocol,
    DeletionInsertionResult,
    deletion_insertion,
)

__all__ = [
    "Explanation",
    "Groups",
    "Photo",
    "Question",
    "Stopped",
    "explain",
    "groups_of",
    "measure",
    "value_at",
]


class Stopped(Exception):  # noqa: N818  what was asked for is no error
    """The user has stopped a computation."""


@dataclass(frozen=True, eq=False)
class Photo:
    """An image, and how a script gets at it.

    Attributes:
        name (str): Its file's name, or that of a sample.
        image (PIL.Image.Image): RGB.
        is_sample (bool): Whether it is one of :func:`~captum_groupcam.images.sample_images`.
    """

    name: str
    image: Image.Image
    is_sample: bool

    @classmethod
    def from_file(cls, path: str | Path) -> Photo:
        """Opens a file.

        Raises:
            ImageError: If it is damaged, no image, or too large.
        """
        return cls(Path(path).name, open_image(path), is_sample=False)

    @classmethod
    def from_sample(cls, name: str) -> Photo:
        """Opens a sample image."""
        return cls(name, sample_images()[name](), is_sample=True)


@dataclass(frozen=True, eq=False)
class Question:
    """Which part of a photo makes a network decide for a class?

    Attributes:
        photo (Photo): The photo.
        model (str): A name for :func:`~captum_groupcam.models.load_model`, with "=" and weights if
            they are not the default.
        layer (str): Dotted name of a layer; "" is the one that the model comes with.
        target (int): Index of the class.
        method (str): A name in :data:`~captum_groupcam.methods.METHODS`.
        options (dict of str to value): The method's options that are not at their defaults.
    """

    photo: Photo
    model: str
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
        inputs (Tensor): What the network saw, 1 x 3 x H x W, on its device.
        shown (Tensor): The same as an image, 3 x H x W in [0, 1].
        attribution (Tensor): The map, 1 x H x W.
        queries (int): How many images the network was asked about.
        warnings (tuple of str): What the method warned of.
    """

    question: Question
    class_name: str
    probability: float
    inputs: Tensor
    shown: Tensor
    attribution: Tensor
    queries: int
    warnings: tuple[str, ...]


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


def explain(models: Models, question: Question, on_query: OnQuery = lambda _: None) -> Explanation:
    """Answers a question.

    Args:
        models (Models): Where its model is.
        question (Question): What is asked.
        on_query (Callable, optional): See :data:`OnQuery`. Default: does nothing.

    Raises:
        ValueError: If the method cannot answer: an option is out of range, the layer has no
            positions, ...
    """
    model = models.load(question.model, question.layer)
    inputs = model.prepare(question.photo.image)
    with (
        watched(model.network, on_query) as queries,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        maps = model.explain(question.method, inputs, question.target, **question.options)
        attribution = maps[0].cpu()
    probabilities = dict(classify(model, question.photo.image))
    return Explanation(
        question=question,
        class_name=model.class_names[question.target],
        probability=probabilities[question.target],
        inputs=inputs,
        shown=model.denormalize(inputs)[0].cpu(),
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
    model = models.load(question.model, question.layer)
    with watched(model.network, on_query):
        scored = scored_masks(
            GroupCAM(model.network, model.layer.module),
            explanation.inputs,
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
    network = models.load(explanation.question.model).network
    attribution = explanation.attribution.to(explanation.inputs.device)
    with watched(network, on_query):
        return deletion_insertion(
            network,
            attribution.unsqueeze(0),
            explanation.inputs,
            explanation.question.target,
            protocol=DeletionInsertionProtocol(step=step),
        )


def value_at(explanation: Explanation, x: int, y: int) -> str:
    """Says what the map is at a pixel.

    Args:
        explanation (Explanation): The answer.
        x (int): Column, from the left.
        y (int): Row, from the top.
    """
    values = explanation.attribution[0]
    value = float(values[y, x])
    below = float((values < value).float().mean())
    return (
        f"x = {x}, y = {y}: {value:.4g}, higher than {below:.0%} of the map. Its largest value is "
        f"{float(values.max()):.4g}."
    )
