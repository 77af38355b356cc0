"""Which batch normalisations can be folded into the convolutions before them, and how."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import Module
from torch.nn.utils import fusion, parametrize

__all__ = ["foldable_pairs", "fused", "put"]

_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
#: Exactly these: a class that is derived from one, such as timm's, may activate too.
_NORMALISATIONS = {
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
}


def _is_normalisation(module: Module) -> bool:
    frozen = sys.modules.get("torchvision.ops")  # its import takes seconds
    return type(module) in _NORMALISATIONS or (
        frozen is not None and type(module) is frozen.FrozenBatchNorm2d
    )


@contextmanager
def foldable_pairs(network: Module) -> Iterator[list[tuple[Module, Module]]]:
    """Gives, after a pass, each convolution whose output the next normalisation takes as it is."""
    pairs: list[tuple[Module, Module]] = []
    calls: dict[Module, int] = {}
    last: list[tuple[Module, Tensor, int]] = []

    def convolved(module: Module, _args: Any, output: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        last[:] = [(module, output, output._version)] if isinstance(output, Tensor) else []

    def normalises(module: Module, args: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        if last and len(args) == 1 and args[0] is last[0][1] and args[0]._version == last[0][2]:
            pairs.append((last[0][0], module))
        last.clear()

    watched = [module for module in network.modules() if _plain(module)]
    handles = [
        module.register_forward_hook(convolved)
        if isinstance(module, _CONVOLUTIONS)
        else module.register_forward_pre_hook(normalises)
        for module in watched
    ]
    try:
        yield pairs
    finally:
        last.clear()
        for handle in handles:
            handle.remove()
        pairs[:] = [pair for pair in pairs if all(calls[module] == 1 for module in pair)]


def _plain(module: Module) -> bool:
    """Whether it is a convolution or normalisation by its own weights, that nobody hooks."""
    norm = _is_normalisation(module) and getattr(module, "running_mean", None) is not None
    return (
        (norm or isinstance(module, _CONVOLUTIONS))
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not parametrize.is_parametrized(module)
    )


def fused(convolution: Module, norm: Module) -> Module:
    """Folds in double precision, so that nothing is lost but the last rounding."""
    weight = cast(Tensor, convolution.weight)
    # Of FrozenBatchNorm2d, too, all that is used is there.
    first, then = (copy.deepcopy(module).double() for module in (convolution, norm))
    transposed = isinstance(convolution, nn.modules.conv._ConvTransposeNd)
    fuse = cast(Callable[..., Module], fusion.fuse_conv_bn_eval)
    return fuse(first, then, transpose=transposed).to(weight.dtype)


def put(network: Module, old: Module, new: Module) -> None:
    """Puts a module wherever another one is."""
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if module is old:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, new)
