"""What the explorer computes, apart from its page: questions about a photo, and their answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import Module

from captum_groupcam.explorer.options import Value, options_of
from captum_groupcam.group_cam import GroupCAM
from captum_groupcam.images import open_image, sample_images
from captum_groupcam.layers import find_reshape_transform
from captum_groupcam.methods import GROUPED, METHODS
from captum_groupcam.metrics.functional import (
    DeletionInsertionResult,
    Protocol,
    deletion_insertion,
)
from captum_groupcam.models import LoadedModel, load_model
from captum_groupcam.uncertainty import scored_masks, standard_error

__all__ = [
    "Explanation",
    "Groups",
    "Models",
    "OnQuery",
    "Photo",
    "Question",
    "Stopped",
    "classify",
    "divide",
    "explain",
    "layers_with_positions",
    "measure",
    "n_queries",
    "prepared",
    "value_at",
    "watched",
]

#: Called before each forward pass with the number of images that the network has seen so far. What
#: it raises ends the computation.
OnQuery = Callable[[int], None]


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
            :func:`~captum_groupcam.uncertainty.standard_error`.
    """

    masks: Tensor
    scores: Tensor
    standard_error: Tensor


class Models:
    """Networks by name, each loaded once.

    Args:
        names (sequence of str): Names for :func:`~captum_groupcam.models.load_model`, each with "="
            and weights if they are not the default.
        device (torch.device or str, optional): Where networks go. Default: None, the CPU.

    Examples::

        >>> models = Models(["efficientnet_lite0"])
        >>> models.layers("efficientnet_lite0")[-1]
        '_bn1'
    """

    def __init__(self, names: list[str], device: torch.device | str | None = None) -> None:
        self.names = names
        self.device = torch.device("cpu" if device is None else device)
        self._loaded: dict[str, LoadedModel] = {}

    def load(self, name: str, layer: str = "") -> LoadedModel:
        """A model, with another layer to explain if one is named.

        Raises:
            ValueError: If it is not among the names, cannot be loaded, or has no such layer.
        """
        if name not in self.names:
            raise ValueError(f"Unknown model {name!r}: expected one of {', '.join(self.names)}.")
        if name not in self._loaded:
            network, _, weights = name.partition("=")
            self._loaded[name] = load_model(network, weights or None, self.device)
        loaded = self._loaded[name]
        if not layer:
            return loaded
        module = dict(loaded.network.named_modules()).get(layer)
        if module is None:
            raise ValueError(f"{name} has no layer {layer!r}.")
        transform = find_reshape_transform(loaded.network, module, _blank(loaded))
        return replace(
            loaded, layer=module, attribute_to_layer_input=False, reshape_transform=transform
        )

    def layers(self, name: str) -> list[str]:
        """Names of the layers of a model that have positions, in the order of their calls."""
        loaded = self.load(name)
        return layers_with_positions(loaded.network, _blank(loaded))

    def default_layer(self, name: str) -> str:
        """What the model comes with, in words."""
        loaded = self.load(name)
        found = next(n for n, module in loaded.network.named_modules() if module is loaded.layer)
        return f"input of {found}" if loaded.attribute_to_layer_input else found


def layers_with_positions(network: Module, inputs: Tensor) -> list[str]:
    """Names of the modules that run once and give maps (N x C x H x W) or tokens (N x T x C)."""
    calls: dict[str, list[bool]] = {}

    def note(name: str, _module: Module, _args: Any, output: Any) -> None:
        dims = output.dim() if isinstance(output, Tensor) else 0
        found = (dims == 4 and output.shape[2:].numel() > 1) or (dims == 3 and output.shape[1] > 1)
        calls.setdefault(name, []).append(found)

    handles = [
        module.register_forward_hook(partial(note, name))
        for name, module in network.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, found in calls.items() if found == [True]]


def _blank(model: LoadedModel) -> Tensor:
    return prepared(model, Image.new("RGB", (64, 64)))


def prepared(model: LoadedModel, image: Image.Image) -> Tensor:
    """An image as the network takes it: 1 x 3 x H x W."""
    device = next(model.network.parameters()).device
    return model.preprocess(image).unsqueeze(0).to(device)


def classify(model: LoadedModel, image: Image.Image) -> list[tuple[int, float]]:
    """Indices and probabilities of all classes, the likeliest first."""
    with torch.no_grad():
        output = model.network(prepared(model, image))
    probabilities, classes = output.softmax(1)[0].sort(descending=True)
    return list(zip(classes.tolist(), probabilities.tolist(), strict=True))


@contextmanager
def watched(network: Module, on_query: OnQuery) -> Iterator[Callable[[], int]]:
    """Counts what a network is asked.

    Yields:
        Callable: The number of images that the network has been asked about.
    """
    count = 0

    # A function, since methods that copy the network copy its hooks, but no functions.
    def count_and_tell(_module: Module, args: tuple[Any, ...]) -> None:
        nonlocal count
        on_query(count)
        count += len(args[0])

    handle = network.register_forward_pre_hook(count_and_tell)
    try:
        yield lambda: count
    finally:
        handle.remove()


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
    method = METHODS[question.method](
        model.network,
        model.layer,
        attribute_to_layer_input=model.attribute_to_layer_input,
        reshape_transform=model.reshape_transform,
        **question.options,
    )
    inputs = prepared(model, question.photo.image)
    with (
        watched(model.network, on_query) as queries,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        attribution = method(inputs, question.target)[0].cpu()
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


#: Options that say how many queries a method makes.
_COUNTS = ("n_groups", "n_masks", "n_steps", "n_samples")


def n_queries(method: str, options: Mapping[str, Value]) -> int | None:
    """About how many images a method asks the network about; None if it does not say."""
    known: dict[str, Any] = {o.name: o.default for o in options_of(method)} | dict(options)
    counts = [known[name] for name in _COUNTS if name in known]
    return int(counts[0]) if counts else None


def divide(models: Models, explanation: Explanation, on_query: OnQuery = lambda _: None) -> Groups:
    """Finds the groups behind an answer, at the same price.

    Args:
        models (Models): Where its model is.
        explanation (Explanation): The answer of one of
            :data:`~captum_groupcam.methods.GROUPED`.
        on_query (Callable, optional): See :data:`OnQuery`. Default: does nothing.
    """
    question = explanation.question
    model = models.load(question.model, question.layer)
    with watched(model.network, on_query):
        scored = scored_masks(
            GroupCAM(model.network, model.layer),
            explanation.inputs,
            question.target,
            attribute_to_layer_input=model.attribute_to_layer_input,
            reshape_transform=model.reshape_transform,
            **GROUPED[question.method],
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
            explanation.inputs,
            attribution.unsqueeze(0),
            explanation.question.target,
            protocol=Protocol(step=step),
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
