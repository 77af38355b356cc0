"""A network as DeepLIFT needs it: an activation for each call, windows that do not overlap."""

from __future__ import annotations

import copy
from collections import Counter
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Module

from captum_groupcam.attr._network_copy import replace_modules

__all__ = ["separate_calls", "separate_windows"]

#: What Captum has a rule for that looks at what the module was given.
_WITH_RULE = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.MaxPool2d)


def separate_calls(network: Module, inputs: Tensor) -> None:
    """Gives each call of an activation a module of its own.

    Args:
        network (torch.nn.Module): A copy, which is changed.
        inputs (Tensor): N x C x H x W, one of which shows what is called.
    """
    calls: Counter[int] = Counter()

    def count(module: Module, _args: object, _output: object) -> None:
        calls[id(module)] += 1

    handles = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, _WITH_RULE)
    ]
    try:
        with torch.no_grad():
            network(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    replace_modules(
        network,
        lambda module: _OnePerCall(module, calls[id(module)]) if calls[id(module)] > 1 else None,
    )


def separate_windows(network: Module) -> None:
    """Lays the windows of max pooling side by side where they overlap.

    Captum's rule keeps one of several contributions of a position.

    Args:
        network (torch.nn.Module): A copy, which is changed.
    """

    def apart(module: Module) -> Module | None:
        overlaps = isinstance(module, nn.MaxPool2d) and module.kernel_size != module.stride
        return _PoolOfApart(cast(nn.MaxPool2d, module)) if overlaps else None

    replace_modules(network, apart)


class _OnePerCall(nn.Module):
    """A module for each call in one pass of the network."""

    def __init__(self, module: Module, n_calls: int) -> None:
        super().__init__()
        self.calls = nn.ModuleList(copy.deepcopy(module) for _ in range(n_calls))
        self.done = 0

    def forward(self, inputs: Tensor) -> Tensor:
        """The next one's, in turn."""
        module = self.calls[self.done % len(self.calls)]
        self.done += 1
        return cast(Tensor, module(inputs))


class _PoolOfApart(nn.Module):
    """Max pooling over windows that are laid side by side first."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.original = copy.copy(pool)
        self.pool = nn.MaxPool2d((1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """N x C x H x W to what the pooling gives."""
        pool = self.original
        kernel, stride, padding, dilation = map(
            _pair, (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        )
        out = F.max_pool2d(
            inputs[:1], kernel, stride, padding, dilation, ceil_mode=pool.ceil_mode
        ).shape[2:]
        spans = [step * (side - 1) + 1 for step, side in zip(dilation, kernel, strict=True)]
        ends = [
            (out[axis] - 1) * stride[axis] + spans[axis] - inputs.shape[2 + axis] - padding[axis]
            for axis in (0, 1)
        ]
        least = float(inputs.detach().min()) - 1
        padded = F.pad(inputs, (padding[1], ends[1], padding[0], ends[0]), value=least)
        windows = padded.unfold(2, spans[0], stride[0]).unfold(3, spans[1], stride[1])
        windows = windows[..., :: dilation[0], :: dilation[1]].flatten(3)
        self.pool.kernel_size = self.pool.stride = (1, kernel[0] * kernel[1])
        return cast(Tensor, self.pool(windows))


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
