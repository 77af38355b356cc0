"""What is explained in a network, as one object."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _compiled
from captum_groupcam._captum import without_class
from captum_groupcam.networks.tensors import check_tensor
from captum_groupcam.networks.trace import Place
from captum_groupcam.networks.transformers import FoundGrid, ReshapeTransform

__all__ = ["LayerCall", "TargetLayer"]

#: Which call of a layer is meant: its only one, one of several, or one for each input.
LayerCall: TypeAlias = int | tuple[int | None, ...] | None

_INPUT_OF = "input of "


@dataclass(frozen=True)
class TargetLayer:
    """A layer of a network that a map can be made of: which module, and how to read it.

    Attributes:
        module (torch.nn.Module): The layer.
        name (str): Its dotted name in the network. Default: "", not known.
        attribute_to_layer_input (bool): Whether its input is meant rather than its output.
            Default: False.
        reshape_transform (Callable or None): Brings its activations to N x C x spatial.
            Default: None, that is what they are.
        layer_call (int, tuple of int or None): Which call of it is meant, from 0, where it runs
            several times in one pass; a tuple has that of each input. Default: None, it runs once.

    Examples::

        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> print(TargetLayer.of(net, "1", attribute_to_layer_input=True))
        input of 1
        >>> TargetLayer.of(net, "input of 1").attribute_to_layer_input
        True
    """

    module: Module
    name: str = ""
    attribute_to_layer_input: bool = False
    reshape_transform: ReshapeTransform | None = None
    layer_call: LayerCall = None

    @classmethod
    def of(
        cls,
        model: Module,
        name: str,
        *,
        attribute_to_layer_input: bool = False,
        reshape_transform: ReshapeTransform | None = None,
    ) -> TargetLayer:
        """Looks a layer up by its name.

        Args:
            model (torch.nn.Module): The network.
            name (str): Dotted name of a module of it, as in ``named_modules()``; "input of" and a
                name, as ``str`` writes a layer whose input is meant.
            attribute_to_layer_input (bool, optional): Whether its input is meant. Default: False.
            reshape_transform (Callable, optional): Brings its activations to N x C x spatial.
                Default: None.

        Returns:
            TargetLayer: The layer.

        Raises:
            ValueError: If the network has no module of this name; names that come close are
                listed, or the network's parts.
        """
        network = cast(Module, _compiled.eager(model))
        if name.startswith(_INPUT_OF):
            name, attribute_to_layer_input = name.removeprefix(_INPUT_OF), True
        modules = {name: module for name, module in network.named_modules() if name}
        if name not in modules:
            close = difflib.get_close_matches(name, modules, n=5, cutoff=0.5)
            parts = [name for name in modules if "." not in name]
            known = close or [*parts[:6], *["..."] * (len(parts) > 12), *parts[6:][-6:]]
            raise ValueError(
                f"{type(network).__name__} has no layer {name!r}; "
                f"{'did you mean' if close else 'its parts are'} {', '.join(known)}"
                f"{'?' if close else ', and named_modules() gives all layers.'} "
                "Without a name one is found (captum_groupcam.networks.find_layer)."
            )
        return cls(modules[name], name, attribute_to_layer_input, reshape_transform)

    def within(self, model: Module) -> TargetLayer:
        """The same layer of a copy of the network.

        Args:
            model (torch.nn.Module): A network with the same modules.

        Returns:
            TargetLayer: The layer of this name in it.

        Raises:
            ValueError: If it has no module of this name.
        """
        found = TargetLayer.of(model, self.name)
        return replace(self, module=found.module)

    def at(self, size: Sequence[int]) -> TargetLayer:
        """The same layer for inputs of a size, which tells the grid of a transformer's tokens.

        Args:
            size (sequence of int): Spatial size of the input.

        Returns:
            TargetLayer: The layer.
        """
        if not isinstance(self.reshape_transform, FoundGrid):
            return self
        return replace(self, reshape_transform=self.reshape_transform.at(size))

    def to_grid(self, activations: Tensor) -> Tensor:
        """Brings what the layer gives, or the gradient with respect to it, to N x C x spatial.

        Args:
            activations (Tensor): N x ...

        Returns:
            Tensor: N x C x spatial.

        Raises:
            TypeError: If the transform is not a function, or does not return a tensor.
        """
        transform = self.reshape_transform
        if transform is None:
            return activations
        if not callable(transform):
            raise TypeError(f"reshape_transform must be a function, got {transform!r}.")
        grid = transform(activations)
        check_tensor("What reshape_transform returns", grid)
        return without_class(grid)

    @property
    def is_brought_by_hand(self) -> bool:
        """Whether its reshape_transform is not one that was found."""
        found = isinstance(self.reshape_transform, FoundGrid)
        return self.reshape_transform is not None and not found

    def without_channels(self, activations: Tensor, channels: Tensor) -> Tensor:
        """What the layer gives, with zero for all that one channel of each row's grid is made of.

        Args:
            activations (Tensor): Q x ..., as the layer gives them.
            channels (Tensor): Q indices of channels.

        Returns:
            Tensor: Activations of the same shape; those of tokens that are not on the grid, such as
            a class token, stay.
        """
        rows = torch.arange(len(channels), device=activations.device)
        channels = channels.to(activations.device)
        if self.reshape_transform is None:
            changed = activations.clone()
            changed[rows, channels] = 0
            return changed
        with torch.enable_grad():
            leaf = torch.zeros_like(activations, requires_grad=True)
            grid = self.to_grid(leaf)
            chosen = torch.zeros_like(grid)
            chosen[rows, channels] = 1
            (reached,) = torch.autograd.grad(grid, leaf, chosen)
        return activations.masked_fill(reached != 0, 0)

    @property
    def keywords(self) -> dict[str, Any]:
        """The arguments of ``attribute`` that Captum's classes take beside the module."""
        keywords: dict[str, Any] = {"attribute_to_layer_input": self.attribute_to_layer_input}
        if self.reshape_transform is not None:
            keywords["reshape_transform"] = self.reshape_transform
        if self.layer_call is not None:
            keywords["layer_call"] = self.layer_call
        return keywords

    def place_in(self, model: Module) -> Place:
        """Where it is in a network, by the first name that its module has there.

        Args:
            model (torch.nn.Module): The network.

        Returns:
            Place: The name, and whether its input is meant.

        Raises:
            ValueError: If the module is not one of the network's, or is all of it.

        Examples::

            >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ReLU())
            >>> TargetLayer.of(net, "input of 1").place_in(net)
            Place(name='1', at_input=True, call=None)
        """
        for name, module in model.named_modules():
            if module is self.module and name:
                return Place(name, self.attribute_to_layer_input)
        raise ValueError(
            f"The layer {self} is not a module of {type(model).__name__}, or is all of it."
        )

    def __str__(self) -> str:
        name = self.name or type(self.module).__name__
        return f"{_INPUT_OF}{name}" if self.attribute_to_layer_input else name
