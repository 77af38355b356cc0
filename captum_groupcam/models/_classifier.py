"""A classifier that is ready to be explained."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam.images import sample_images
from captum_groupcam.masking.targets import TargetType
from captum_groupcam.methods import Method, find_method
from captum_groupcam.models._preprocessing import Preprocess, channel_statistics
from captum_groupcam.naming import one_line
from captum_groupcam.networks.acceleration import accelerate
from captum_groupcam.networks.layers import find_layer, find_reshape_transform
from captum_groupcam.networks.outputs import SelectOutput, tensors_of
from captum_groupcam.networks.target_layer import TargetLayer

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageClassifier", "numbered"]


class ImageClassifier:
    """A network with all that is needed to explain pictures: it explains by itself.

    The network is put into evaluation mode, and shown one picture, to check that all fits.

    Args:
        network (torch.nn.Module): N x C x H x W to N x classes, before the softmax. If it gives a
            mapping, a tuple or an object with one tensor of N x classes in it (as the networks of
            Hugging Face do), this is taken.
        preprocess (Callable): A PIL image (RGB) to C x H x W, on the CPU:
            :class:`~captum_groupcam.models.Preprocessing`, a transform of torchvision, or any
            function.
        class_names (sequence of str, optional): A name for each class. Default: None, for
            "class 0", "class 1", ...
        layer (str, torch.nn.Module or TargetLayer, optional): What is explained: the output of the
            layer of this dotted name, of this module, or what a
            :class:`~captum_groupcam.networks.target_layer.TargetLayer` says. Default: None, the
            last layer that knows positions, which :func:`~captum_groupcam.networks.find_layer`
            finds when it is first needed.
        mean (sequence of float, optional): Mean of each channel that preprocess takes off, of
            values in [0, 1]. Default: None, found by asking preprocess.
        std (sequence of float, optional): Standard deviation that it divides by. Default: None,
            found likewise.
        name (str, optional): What tables and reports call it. Default: "", the network's class.

    Attributes:
        source (dict or None): Arguments of :func:`~captum_groupcam.models.load_model` that load it
            again; None for a network that was wrapped.
        notes (tuple of str): What to tell the user about how it was loaded, a line each.

    Raises:
        TypeError: If the network is not a module.
        ValueError: If the network cannot take what preprocess gives, its output is not N x classes,
            there are more or fewer names than classes, or there is no such layer.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> from captum_groupcam.models import Preprocessing
        >>> network = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3),
        ...     nn.ReLU(),
        ...     nn.AdaptiveAvgPool2d(1),
        ...     nn.Flatten(),
        ...     nn.Linear(8, 2),
        ... )
        >>> preprocess = Preprocessing(32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> model = ImageClassifier(network, preprocess, ["cat", "dog"])
        >>> print(model.layer)
        1
        >>> model.explain("group_cam", torch.rand(2, 3, 32, 32), [0, 1], n_groups=4).shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(
        self,
        network: Module,
        preprocess: Preprocess,
        class_names: Sequence[str] | None = None,
        layer: TargetLayer | Module | str | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        name: str = "",
    ) -> None:
        if not isinstance(network, Module):
            raise TypeError(f"Expected a torch.nn.Module, got {type(network).__name__}.")
        if not callable(preprocess):
            raise TypeError(
                "Expected a function that turns a PIL image into C x H x W, got "
                f"{type(preprocess).__name__}."
            )
        if (mean is None) != (std is None):
            raise ValueError("Give mean and std, or neither.")
        self.name = name or type(network).__name__
        self.preprocess = preprocess
        self.source: dict[str, Any] | None = None
        self.notes: tuple[str, ...] = ()
        self._given = None if mean is None or std is None else (tuple(mean), tuple(std))
        self.network: Module
        self.network, n_classes = _with_one_output(network.eval(), self._blank(network))
        self.class_names = numbered(n_classes) if class_names is None else list(class_names)
        if len(self.class_names) != n_classes:
            raise ValueError(
                f"{self.name} tells {n_classes} classes apart, but there are "
                f"{len(self.class_names)} class names."
            )
        self._chosen = None if layer is None else _chosen(self.network, layer)

    @cached_property
    def layer(self) -> TargetLayer:
        """What is explained, for inputs of the size that preprocess gives.

        Raises:
            ValueError: If no layer was given and none, or more than one, is found.
        """
        blank = self._blank(self.network)
        layer = self._chosen
        if layer is None:
            return find_layer(self.network, blank)
        if layer.reshape_transform is not None:
            return layer
        transform = find_reshape_transform(
            self.network,
            layer.module,
            blank,
            **replace(layer, layer_call=None).keywords,
        )
        return replace(layer, reshape_transform=transform)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return _device_of(self.network)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel that preprocess takes off, of values in [0, 1].

        Raises:
            ValueError: If it was not given and cannot be found.
        """
        return self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel that preprocess divides by.

        Raises:
            ValueError: If it was not given and cannot be found.
        """
        return self._statistics[1]

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self._given or channel_statistics(self.preprocess)

    def prepare(self, image: Image) -> Tensor:
        """Turns a picture into what the network takes.

        Args:
            image (PIL.Image.Image): RGB.

        Returns:
            Tensor: 1 x C x H x W, on the network's device.
        """
        return self.preprocess(image).unsqueeze(0).to(self.device)

    def denormalize(self, inputs: Tensor) -> Tensor:
        """Turns preprocessed images into what the network sees.

        Args:
            inputs (Tensor): ... x C x H x W, as ``preprocess`` gives them.

        Returns:
            Tensor: The same shape, values in [0, 1].
        """
        mean, std = (inputs.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (inputs * std + mean).clamp(0, 1)

    def classify(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Asks for the likeliest classes.

        Args:
            inputs (Tensor): N x C x H x W.

        Returns:
            tuple of Tensor: Probabilities and indices of all classes, N x classes each, the
            likeliest first.
        """
        with torch.no_grad():
            output = self.network(inputs)
        probabilities, classes = output.softmax(1).sort(1, descending=True)
        return probabilities, classes

    def explain(
        self, method: str | Method, inputs: Tensor, target: TargetType, **options: Any
    ) -> Tensor:
        """Explains inputs by a method.

        Args:
            method (str or Method): A name in :data:`~captum_groupcam.methods.METHODS`, or a method.
            inputs (Tensor): N x C x H x W, on the network's device.
            target (int, Tensor or list): The class, for all or for each.
            **options (Any, optional): The method's options.

        Returns:
            Tensor: Maps, N x 1 x H x W.

        Raises:
            TypeError: If the method has no such option, or a value is of another type.
            ValueError: If there is no such method, or as the method.
        """
        found = find_method(method) if isinstance(method, str) else method
        layer = self.layer if found.on_layer else None
        return found(self.network, layer, **options)(inputs, target)

    def at_layer(self, name: str) -> ImageClassifier:
        """The same network with another layer to explain: the output of the one of this name.

        Args:
            name (str): The layer's dotted name.

        Returns:
            ImageClassifier: It shares the network.

        Raises:
            ValueError: If there is no such layer.
        """
        return self.changed(layer=name)

    def changed(
        self,
        *,
        preprocess: Preprocess | None = None,
        class_names: Sequence[str] | None = None,
        layer: TargetLayer | Module | str | None = None,
    ) -> ImageClassifier:
        """The same network, told otherwise; what is None stays.

        Args:
            preprocess (Callable, optional): A PIL image (RGB) to C x H x W. Default: None.
            class_names (sequence of str, optional): A name for each class. Default: None.
            layer (str, torch.nn.Module or TargetLayer, optional): What is explained.
                Default: None.

        Returns:
            ImageClassifier: It shares the network.

        Raises:
            ValueError: As the class.
        """
        chosen = self._chosen if layer is None else _chosen(self.network, layer)
        if preprocess is None and class_names is None:
            other = copy.copy(self)
            if layer is not None:
                other.__dict__.pop("layer", None)
                other._chosen = chosen
        else:
            mean, std = self._given if self._given and preprocess is None else (None, None)
            other = ImageClassifier(
                self.network,
                self.preprocess if preprocess is None else preprocess,
                self.class_names if class_names is None else class_names,
                chosen,
                mean=mean,
                std=std,
                name=self.name,
            )
            other.notes = self.notes
        if self.source is not None and isinstance(layer, str):
            other.source = {**self.source, "layer": layer}
        return other

    def accelerated(self, *, compiled_batch_size: int | None = None) -> ImageClassifier:
        """The same network, whose passes without gradients are answered by a faster copy of it.

        Args:
            compiled_batch_size (int, optional): Compile it for passes of this many inputs, see
                :func:`~captum_groupcam.networks.acceleration.accelerate`. Default: None.

        Returns:
            ImageClassifier: It shares the network as it is.

        Raises:
            ValueError: If the network cannot be copied.
        """
        sample = self.prepare(sample_images()["cat"]())
        network = accelerate(self.network, sample, compiled_batch_size=compiled_batch_size)
        other = copy.copy(self)
        other.network = network
        other.notes = (*self.notes, f"{network.folded} batch normalisations are folded for queries")
        return other

    def _blank(self, network: Module) -> Tensor:
        """A picture of no content, as the network takes it."""
        from PIL import Image

        try:
            blank = self.preprocess(Image.new("RGB", (64, 64)))
        except Exception as error:
            raise ValueError(
                f"The preprocessing of {self.name} cannot take a picture: {one_line(error)}"
            ) from error
        if not isinstance(blank, Tensor) or blank.dim() != 3 or not blank.is_floating_point():
            shape = f" {tuple(blank.shape)}, {blank.dtype}" if isinstance(blank, Tensor) else ""
            raise ValueError(
                f"The preprocessing of {self.name} must turn a PIL image into floating-point C x H "
                f"x W; it gave {type(blank).__name__}{shape}."
            )
        return blank.unsqueeze(0).to(_device_of(network))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, {len(self.class_names)} classes)"


def numbered(n_classes: int) -> list[str]:
    """Names for classes without names."""
    return [f"class {index}" for index in range(n_classes)]


def _chosen(network: Module, layer: TargetLayer | Module | str) -> TargetLayer:
    if isinstance(layer, str):
        return TargetLayer.of(network, layer)
    if isinstance(layer, TargetLayer) and layer.name:
        return layer
    module = layer.module if isinstance(layer, TargetLayer) else layer
    # By its name it is found in a copy of the network, too.
    name = next((name for name, one in network.named_modules() if one is module), "")
    if not name:
        raise ValueError(f"The layer, a {type(module).__name__}, is not part of the network.")
    return replace(layer, name=name) if isinstance(layer, TargetLayer) else TargetLayer(layer, name)


def _with_one_output(network: Module, blank: Tensor) -> tuple[Module, int]:
    """The network, giving N x classes alone; and the number of classes."""
    what = type(network).__name__
    try:
        with torch.inference_mode(False), torch.no_grad():
            output = network(blank)
    except Exception as error:
        raise ValueError(
            f"{what} cannot take what its preprocessing gives, {tuple(blank.shape)}: "
            f"{one_line(error)}"
        ) from error
    if not isinstance(output, Tensor):
        scores = {
            key: tensor
            for key, tensor in tensors_of(output).items()
            if tensor.dim() == 2 and len(tensor) == 1 and tensor.is_floating_point()
        }
        if len(scores) != 1:
            raise ValueError(
                f"{what} gives {type(output).__name__} with {len(scores)} tensors of N x classes"
                f"{f' ({list(scores)})' if scores else ''}: choose what is explained by "
                "captum_groupcam.networks.SelectOutput(network, key)."
            )
        ((key, output),) = scores.items()
        network = SelectOutput(network, key)
    if output.dim() != 2 or len(output) != 1 or not output.is_floating_point():
        raise ValueError(
            f"Expected {what} to give N x classes, got {tuple(output.shape)}, {output.dtype}, for "
            f"{tuple(blank.shape)}."
        )
    return network, output.shape[1]


def _device_of(network: Module) -> torch.device:
    tensors = (*network.parameters(), *network.buffers())
    return tensors[0].device if tensors else torch.device("cpu")
