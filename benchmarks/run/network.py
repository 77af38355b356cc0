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
from captum_groupcam.networks.passes import each_pass

__all__ = ["Compiled", "Queries", "counted", "preprocessing_of"]


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


class Queries:
    """How many images a network was shown."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, rows: int) -> None:
        """Counts a pass."""
        self.count += rows


@contextmanager
def counted(network: Module) -> Iterator[Queries]:
    """Counts the images that pass through a network, also through copies made meanwhile.

    Args:
        network (Module): The network, as it is, :class:`Compiled`, or accelerated.

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
    with each_pass(network, queries.add):
        yield queries


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
