"""Which activations can overwrite their input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import Module
from torch.nn.modules import activation

__all__ = ["overwriting_activations"]

_CONVOLUTIONS = (nn.modules.conv._ConvNd,)


@contextmanager
def overwriting_activations(network: Module) -> Iterator[list[Module]]:
    """Finds activations that only ever take what a convolution has just made.

    Whether something else reads that, too, shows in the network's outputs.

    Yields:
        list of Module: They are in it after a pass.
    """
    found: list[Module] = []
    others: set[Module] = set()
    last: list[Tensor] = []

    def convolved(_module: Module, _args: Any, output: Any) -> None:
        last[:] = [output] if isinstance(output, Tensor) else []

    def activates(module: Module, args: Any) -> None:
        if not (last and len(args) == 1 and args[0] is last[0]):
            others.add(module)
        elif module not in found:
            found.append(module)
        last.clear()

    handles = [
        module.register_forward_hook(convolved)
        if isinstance(module, _CONVOLUTIONS)
        else module.register_forward_pre_hook(activates)
        for module in network.modules()
        if isinstance(module, _CONVOLUTIONS) or _can_overwrite(module)
    ]
    try:
        yield found
    finally:
        last.clear()
        for handle in handles:
            handle.remove()
        found[:] = [module for module in found if module not in others]


def _can_overwrite(module: Module) -> bool:
    """Whether it is one of PyTorch's that has the choice, that nobody hooks."""
    return (
        type(module).__module__ == activation.__name__
        and getattr(module, "inplace", None) is False
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )
