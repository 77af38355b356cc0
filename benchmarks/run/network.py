"""The network of a run: faster where nobody looks inside, counted, and what it sees."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam.models import ImageClassifier, Preprocessing
from captum_groupcam.naming import is_reference
from captum_groupcam.networks import accelerate

__all__ = ["Accelerated", "Compiled", "Queries", "counted", "preprocessing_of"]


class Compiled(Module):
    """A network whose passes without gradients are compiled; the others run as written.

    Methods find its layers, hook into them and ask for gradients as usual. What costs, hundreds of
    masked or perturbed images, is compiled: once for each size of a batch.

    Args:
        network (Module): The network, in evaluation mode.

    Examples::

        >>> network = Compiled(torch.nn.Linear(4, 2))
        >>> network(torch.ones(1, 4)).requires_grad
        True
    """

    def __init__(self, network: Module) -> None:
        super().__init__()
        # The name by which torch.compile, and so the package, knows what is behind.
        self._orig_mod = network
        # Not of the module itself: its hooks are not to be compiled.
        self._compiled = torch.compile(network.forward, dynamic=False)
        self.train(network.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        """A copy of the network as it is written: what is compiled has this one's weights."""
        return copy.deepcopy(self._orig_mod, memo)

    def forward(self, inputs: Tensor) -> Tensor:
        """N x C x H x W to N x classes."""
        if torch.is_grad_enabled():
            return cast(Tensor, self._orig_mod(inputs))
        return cast(Tensor, self._compiled(inputs))


class Accelerated(Module):
    """A network whose passes without gradients are answered by a faster copy of it.

    As :func:`~captum_groupcam.networks.accelerate` gives it. Its queries are counted, whichever of
    the two answers.

    Args:
        network (Module): The network, in evaluation mode.
        inputs (Tensor): Inputs like those that it will be asked about.

    Examples::

        >>> network = Accelerated(torch.nn.Linear(4, 2).eval(), torch.ones(1, 4))
        >>> with counted(network) as queries, torch.no_grad():
        ...     _ = network(torch.ones(3, 4))
        >>> queries.count
        3
    """

    def __init__(self, network: Module, inputs: Tensor) -> None:
        super().__init__()
        self._orig_mod = network
        self.queries = Queries()
        self._is_asked = False

        # A function, and there before the copy, which answers as long as there is no new hook.
        def count(_module: Module, args: tuple[Any, ...]) -> None:
            if not self._is_asked:
                self.queries.count += len(args[0])

        network.register_forward_pre_hook(count)
        self._fast = (accelerate(network, inputs),)  # no part of this module
        self.train(network.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        """A copy of the network as it is: the faster one has its weights."""
        return copy.deepcopy(self._orig_mod, memo)

    def forward(self, inputs: Tensor) -> Tensor:
        """N x C x H x W to N x classes."""
        self.queries.count += len(inputs)
        self._is_asked = True
        try:
            return cast(Tensor, self._fast[0](inputs))
        finally:
            self._is_asked = False


class Queries:
    """How many images a network was shown."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def counted(network: Module) -> Iterator[Queries]:
    """Counts the images that pass through a network, also through copies made meanwhile.

    Args:
        network (Module): The network, :class:`Compiled`, :class:`Accelerated` or neither.

    Yields:
        Queries: The count so far.

    Examples::

        >>> network = torch.nn.Linear(4, 2)
        >>> with counted(network) as queries:
        ...     _ = network(torch.ones(3, 4))
        >>> queries.count
        3
    """
    queries = Queries()
    if isinstance(network, Accelerated):
        before, network.queries = network.queries, queries
        try:
            yield queries
        finally:
            network.queries = before
        return
    inner = getattr(network, "_orig_mod", None)

    def count(_module: Module, args: tuple[Any, ...]) -> None:
        queries.count += len(args[0])

    def count_compiled(_module: Module, args: tuple[Any, ...]) -> None:
        if not torch.is_grad_enabled():  # else the network itself is called, and counts
            queries.count += len(args[0])

    handles = [network.register_forward_pre_hook(count_compiled if inner is not None else count)]
    if inner is not None:
        handles.append(inner.register_forward_pre_hook(count))
    try:
        yield queries
    finally:
        for handle in handles:
            handle.remove()


def preprocessing_of(model: ImageClassifier, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is done to pictures, where a published network's name does not say it.

    Args:
        model (ImageClassifier): The network.
        given (mapping): Arguments of :func:`~captum_groupcam.models.load_model` that made it.

    Returns:
        dict: An entry ``preprocess``, or nothing: that of a published network is its own.
    """
    name, told = str(given["name"]), given.get("preprocess")
    if told is None and not is_reference(name) and not name.endswith(".toml"):
        return {}
    if isinstance(model.preprocess, Preprocessing):
        values = asdict(model.preprocess)
        return {"preprocess": json.loads(json.dumps(values))}  # lists, as they are read again
    return {} if told is None else {"preprocess": told}
