"""Which layers of zero padding the convolution after them can do itself, and how."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Module
from torch.nn.utils import parametrize

__all__ = ["foldable_paddings", "padding"]

#: How many products more for each input value a convolution may take: about what a copy costs.
_MOST_MORE = 256
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_PADS: dict[type[Module], type[Module]] = {
    nn.ZeroPad1d: nn.Conv1d,
    nn.ZeroPad2d: nn.Conv2d,
    nn.ZeroPad3d: nn.Conv3d,
}


@contextmanager
def foldable_paddings(network: Module) -> Iterator[list[tuple[Module, Module]]]:
    """Gives, after a pass, each layer of zero padding whose output one convolution takes.

    The padding runs before the convolution or, in its ``forward``, at the beginning of it. Whether
    something else takes its output, too, shows in the network's outputs.

    Yields:
        list of tuple of Module: Paddings and convolutions, after the pass.
    """
    pairs: list[tuple[Module, Module]] = []
    calls: dict[Module, int] = {}
    inside: list[tuple[Module, Any]] = []
    last: list[tuple[Module, Tensor]] = []

    def begins(module: Module, args: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        if last and len(args) == 1 and args[0] is last[0][1]:
            pairs.append((last[0][0], module))
        last.clear()
        inside.append((module, args[0] if len(args) == 1 else None))

    def ends(_module: Module, _args: Any, _output: Any) -> None:
        inside.pop()

    def padded(module: Module, args: Any, output: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        if inside and len(args) == 1 and args[0] is inside[-1][1]:
            pairs.append((module, inside[-1][0]))
        last[:] = [(module, output)]

    handles: list[Any] = []
    for module in network.modules():
        if _pads(module):
            handles.append(module.register_forward_hook(padded))
        elif _can_pad(module):
            handles.append(module.register_forward_pre_hook(begins))
            handles.append(module.register_forward_hook(ends))
    try:
        yield pairs
    finally:
        last.clear()
        inside.clear()
        for handle in handles:
            handle.remove()
        used = [module for pair in pairs for module in pair]
        pairs[:] = [
            (pad, convolution)
            for pad, convolution in pairs
            if isinstance(convolution, _PADS[type(pad)])
            and _more_products(convolution, pad) <= _MOST_MORE
            and all(calls[one] == used.count(one) == 1 for one in (pad, convolution))
        ]


def _pads(module: Any) -> bool:
    """Whether it is zero padding that takes nothing away, and nobody hooks it."""
    return type(module) in _PADS and min(module.padding) >= 0 and not _hooked(module)


def _can_pad(module: Any) -> bool:
    """Whether it is a convolution without padding, by its own weights, that nobody hooks."""
    return (
        isinstance(module, _CONVOLUTIONS)
        and not isinstance(module.padding, str)
        and not any(module.padding)
        and module.padding_mode == "zeros"
        and not _hooked(module)
        and not parametrize.is_parametrized(module)
    )


def _hooked(module: Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def padding(convolution: Any, pad: Any) -> Any:
    """A convolution that does the padding itself.

    It pads both ends of an axis alike. Where one end has more, the kernel gets as many zeros at its
    other end.

    Args:
        convolution (torch.nn.Module): The convolution, without padding of its own.
        pad (torch.nn.Module): The zero padding before it.

    Returns:
        torch.nn.Module: A copy of the convolution, with padding.
    """
    whole = copy.copy(convolution)
    whole._parameters = dict(convolution._parameters)
    weight = F.pad(convolution.weight, _more(pad))
    whole.weight = nn.Parameter(weight, requires_grad=False)
    whole.kernel_size = tuple(weight.shape[2:])
    whole.padding = tuple(max(both) for both in reversed(_ends(pad)))
    return whole


def _ends(pad: Any) -> list[tuple[int, int]]:
    """What is added at the beginning and at the end of each axis, the last axis first."""
    return list(zip(pad.padding[::2], pad.padding[1::2], strict=True))


def _more(pad: Module) -> list[int]:
    """What the kernel gets at either end of each axis, the last axis first."""
    return [n for begin, end in _ends(pad) for n in (max(end - begin, 0), max(begin - end, 0))]


def _more_products(convolution: Any, pad: Module) -> int:
    """How many more products there are for each place of the kernel and input channel."""
    size, more = convolution.kernel_size, _more(pad)
    added = [before + after for before, after in zip(more[::2], more[1::2], strict=True)]
    grown: int = prod(n + m for n, m in zip(reversed(size), added, strict=True)) - prod(size)
    filters: int = convolution.out_channels // convolution.groups
    return grown * filters
