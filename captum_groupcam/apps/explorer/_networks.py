"""The networks that the explorer asks: each loaded once, its layers listed, its queries counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import Module

from captum_groupcam.apps._passes import MANY_PASSES, accelerated_where_it_pays
from captum_groupcam.models import ImageClassifier, load_model
from captum_groupcam.networks.passes import each_pass

__all__ = ["Models", "OnQuery", "layers_with_positions", "watched"]

#: Called before each forward pass with the number of images that the network has seen so far. What
#: it raises ends the computation.
OnQuery = Callable[[int], None]


class Models:
    """Networks by name, each loaded once.

    Only these can be asked: what the page sends is looked up among them, and nothing else is
    loaded or imported.

    Args:
        networks (sequence of str or ImageClassifier): Names for
            :func:`~captum_groupcam.models.load_model`, each with "=" and weights if they are not
            the default, or networks that are loaded already.
        device (torch.device or str, optional): Where networks go that are given by name.
            Default: None, the CPU.

    Raises:
        ValueError: If there is none, or two have one name.

    Examples::

        >>> models = Models(["efficientnet_lite0"])
        >>> models.layers("efficientnet_lite0")[-1]
        '_bn1'
    """

    def __init__(
        self,
        networks: Sequence[str | ImageClassifier],
        device: torch.device | str | None = None,
    ) -> None:
        self.names = [one if isinstance(one, str) else one.name for one in networks]
        if not self.names or len({*self.names}) < len(self.names):
            raise ValueError(
                "Expected networks of different names, at least one; got "
                f"{', '.join(self.names) or 'none'}."
            )
        self.device = torch.device("cpu" if device is None else device)
        self._loaded = {one.name: one for one in networks if not isinstance(one, str)}
        self._fast: dict[str, ImageClassifier] = {}
        self._layers: dict[str, list[str]] = {}

    def load(self, name: str, layer: str = "") -> ImageClassifier:
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
        return loaded.at_layer(layer) if layer else loaded

    def asked(self, name: str, layer: str = "") -> ImageClassifier:
        """As :meth:`load`, with a faster copy of the network for queries where that pays.

        Raises:
            ValueError: As :meth:`load`.
        """
        loaded = self.load(name)
        if name not in self._fast:
            self._fast[name], _ = accelerated_where_it_pays(loaded, MANY_PASSES)
        fast = self._fast[name]
        return fast.at_layer(layer) if layer else fast

    def layers(self, name: str) -> list[str]:
        """Names of the layers of a model that have positions, in the order of their calls."""
        if name not in self._layers:
            loaded = self.load(name)
            blank = loaded.prepare(Image.new("RGB", (64, 64)))
            self._layers[name] = layers_with_positions(loaded.network, blank)
        return self._layers[name]

    def are_listed(self, name: str) -> bool:
        """Whether the layers of a model are known, so that it takes no time to name them."""
        return name in self._layers

    def default_layer(self, name: str) -> str:
        """What the model comes with, in words."""
        return str(self.load(name).layer)


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


@contextmanager
def watched(network: Module, on_query: OnQuery) -> Iterator[Callable[[], int]]:
    """Counts what a network is asked.

    Yields:
        Callable: The number of images that the network has been asked about.
    """
    count = 0

    def count_and_tell(rows: int) -> None:
        nonlocal count
        on_query(count)
        count += rows

    with each_pass(network, count_and_tell):
        yield lambda: count
