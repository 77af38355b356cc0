"""Whether the channels of a layer come first, as far as its modules tell without a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import nn
from torch.nn import Module
from torch.nn.modules import batchnorm, conv, instancenorm, pooling

__all__ = ["may_come_last", "surely_come_first"]

#: What gives its channels before its positions, whatever network it is in.
_FIRST = (
    conv._ConvNd,
    batchnorm._NormBase,
    instancenorm._InstanceNorm,
    nn.GroupNorm,
    pooling._MaxPoolNd,
    pooling._AvgPoolNd,
    pooling._AdaptiveAvgPoolNd,
    pooling._AdaptiveMaxPoolNd,
)
#: Files of modules that keep the order of axes: those of torch, timm, transformers, torchvision.
_KEEPING = ("activation", "activations", "activations_me", "dropout", "drop", "stochastic_depth")


def surely_come_first(
    module: Module,
    shape: Sequence[int],
    *,
    at_input: bool,
    network: Callable[[], Iterable[Module]],
) -> bool:
    """Whether a layer consists of modules that have their channels before their positions.

    Args:
        module (torch.nn.Module): The layer.
        shape (sequence of int): Of its activations, N x K x spatial.
        at_input (bool): Whether its input is meant.
        network (Callable): Gives the modules of the network, among which is what ran before an
            activation function.

    Returns:
        bool: Whether that is certain; if not, it may be so.

    Examples::

        >>> def first(*modules):
        ...     net = nn.Sequential(*modules)
        ...     return surely_come_first(net, (1, 8, 4, 8), at_input=False, network=net.modules)
        >>> first(nn.Conv2d(3, 8, 3), nn.ReLU()), first(nn.Conv2d(3, 8, 3), nn.LayerNorm(8))
        (True, False)
    """
    if at_input:
        return isinstance(_first(module), conv._ConvNd)
    last = _last(module)
    last = _before(module, network()) if last is None else last
    if last is None or isinstance(last, _FIRST):
        return last is not None
    leaves = [part for part in last.modules() if not _has_parts(part)]
    if not any(isinstance(leaf, conv._ConvNd) for leaf in leaves):
        return False
    only = all(isinstance(leaf, _FIRST) or _keeps(leaf) for leaf in leaves)
    # A block may turn what its convolutions give, as those of signals often do.
    return only and len(shape) > 3 and shape[1] in _widths([last]) and shape[1] != shape[-1]


def may_come_last(
    module: Module, shape: Sequence[int], network: Callable[[], Iterable[Module]]
) -> bool:
    """Whether the last axis has the size of something that a weight has.

    Args:
        module (torch.nn.Module): The layer.
        shape (sequence of int): Of its activations, N x K x spatial.
        network (Callable): Gives the modules of the network, for a layer without weights.

    Returns:
        bool: Whether it can be the axis of channels.

    Examples::

        >>> norm = nn.LayerNorm(96)
        >>> [may_come_last(norm, (1, 96, 96, last), norm.modules) for last in (96, 95)]
        [True, False]
    """
    return shape[-1] in (_widths(module.modules()) or _widths(network()))


def _widths(modules: Iterable[Module]) -> set[int]:
    """The numbers of channels that go in and come out somewhere."""
    own = (p for module in modules for p in module.parameters(recurse=False))
    return {size for parameter in own for size in parameter.shape[:2]}


def _has_parts(module: Module) -> bool:
    return next(module.children(), None) is not None


def _keeps(leaf: Module) -> bool:
    """Whether a module without others leaves the axes as they are."""
    if isinstance(leaf, nn.Identity):
        return True
    return type(leaf).__module__.rpartition(".")[2] in _KEEPING


def _in_turn(module: Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _first(module: Module) -> Module:
    while _in_turn(module) and _has_parts(module):
        module = next(module.children())
    return module


def _last(module: Module) -> Module | None:
    """The last part that may change the order of axes, if there is one."""
    if _in_turn(module):
        found = (_last(part) for part in reversed(list(module.children())))
        return next((part for part in found if part is not None), None)
    return None if not _has_parts(module) and _keeps(module) else module


def _before(module: Module, network: Iterable[Module]) -> Module | None:
    """What runs before a module in a ``Sequential``."""
    for parent in network:
        parts = list(parent.children()) if _in_turn(parent) else []
        for place, part in enumerate(parts):
            if part is module:
                return _last(nn.Sequential(*parts[:place]))
    return None
