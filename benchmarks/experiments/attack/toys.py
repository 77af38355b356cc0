"""What is attacked: a small network and a few samples, which exist while an attack lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from captum_groupcam.methods import METHODS, Method, MethodSpec
from captum_groupcam.models import MODELS, ImageClassifier

from ...data import DATASETS, Dataset, Sample
from ...measures.registry import MEASURES, Measure
from ...run.loop import RunSettings

__all__ = ["N_CLASSES", "Network", "entered", "good_loaders", "good_sample", "settings", "toys"]

N_CLASSES = 5
_NAME = "attacked"
_SIDE = 32


class Network(nn.Module):
    """N x 3 x 32 x 32 to N x classes.

    Args:
        trap (callable, optional): Sees the inputs and the outputs of each pass, and returns the
            outputs or raises. Default: None.
    """

    def __init__(self, trap: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, N_CLASSES))
        self._trap = trap

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores, before the softmax."""
        outputs: Tensor = self.head(self.features(inputs).relu())
        return outputs if self._trap is None else self._trap(inputs, outputs)


def good_sample(index: int, name: str | None = None) -> Sample:
    """A sample that nothing is wrong with."""
    pixels = np.random.default_rng(index).integers(0, 255, (48, 40, 3), dtype=np.uint8)
    return Sample(
        f"good {index}" if name is None else name,
        Image.fromarray(pixels),
        (index % N_CLASSES,),
        f"kind {index % 2}",
        boxes=torch.tensor([[4.0, 4.0, 20.0, 30.0 + index % 8]], dtype=torch.float64),
    )


def good_loaders(count: int) -> dict[str, Callable[[], Sample]]:
    """Samples that nothing is wrong with, as a data set has them."""
    return {f"good {index}": partial(good_sample, index) for index in range(count)}


@contextmanager
def toys(
    loaders: Mapping[str, Callable[[], Any]],
    *,
    methods: Mapping[str, Method] | None = None,
    measures: Mapping[str, Measure] | None = None,
    trap: Callable[[Tensor, Tensor], Tensor] | None = None,
    seed: int = 3,
) -> Iterator[None]:
    """The network, a data set, and methods and measures of one's own, in the registries.

    Args:
        loaders (mapping): Names of samples to what loads them.
        methods (mapping, optional): Entries of :data:`~captum_groupcam.methods.METHODS`. Default:
            none.
        measures (mapping, optional): Entries of :data:`~benchmarks.measures.registry.MEASURES`.
            Default: none.
        trap (callable, optional): As of :class:`Network`. Default: None.
        seed (int, optional): Of the network's weights, unless they are random. Default: 3.
    """

    def network(_name: str, weights: str | None, _n_classes: int | None) -> ImageClassifier:
        if weights != "random":
            torch.default_generator.manual_seed(seed)
        names = [f"class {index}" for index in range(N_CLASSES)]
        return ImageClassifier(Network(trap), _preprocess, names, "features.2")

    def dataset(
        root: str | Path | None = None,  # noqa: ARG001
        class_names: Sequence[str] | None = None,  # noqa: ARG001
    ) -> Dataset:
        return Dataset(dict(loaders))

    with ExitStack() as stack:
        stack.enter_context(entered(MODELS, {_NAME: network}))
        stack.enter_context(entered(DATASETS, {_NAME: dataset}))
        if methods:
            stack.enter_context(entered(METHODS, methods))
        if measures:
            stack.enter_context(entered(MEASURES, measures))
        yield


def settings(out: Path, **changes: Any) -> RunSettings:
    """What is run in the attacks: two methods and two measures, unless something is changed."""
    methods = [MethodSpec("centre"), MethodSpec("grad_cam")]
    options: dict[str, Any] = {
        "methods": methods,
        "measures": ["PointingGame", "AverageDrop"],
        "dataset": _NAME,
        "model": _NAME,
        "n_shown": 1,
        "accelerator": "cpu",
    }
    return RunSettings(out, **(options | changes))


@contextmanager
def entered(registry: dict[str, Any], entries: Mapping[str, Any]) -> Iterator[None]:
    """Has entries in a registry for a while.

    Args:
        registry (dict): The registry.
        entries (mapping): New entries.
    """
    registry.update(entries)
    try:
        yield
    finally:
        for name in entries:
            del registry[name]


def _preprocess(image: Image.Image) -> Tensor:
    """An image as the network takes it."""
    scaled: Tensor = to_tensor(image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
    return scaled * 2 - 1
