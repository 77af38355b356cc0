"""Notice of each pass through a network, whether it or a faster copy answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn import Module

__all__ = ["PassHook", "each_pass"]


class PassHook:
    """A hook that tells of passes and changes nothing: a faster copy answers as without it.

    Args:
        tell (Callable): Called before each pass with the number of rows.

    Examples::

        >>> import torch
        >>> network, rows = torch.nn.Linear(4, 2), []
        >>> handle = network.register_forward_pre_hook(PassHook(rows.append))
        >>> _ = network(torch.ones(3, 4))
        >>> rows
        [3]
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell

    def __deepcopy__(self, memo: dict[int, Any]) -> PassHook:
        """Itself: passes through copies of a network count, too."""
        return self

    def __call__(self, _module: Module, args: tuple[Any, ...]) -> None:
        """Before a pass."""
        self._tell(len(args[0]))


@contextmanager
def each_pass(network: Module, tell: Callable[[int], None]) -> Iterator[None]:
    """Tells of each pass through a network, also through copies made meanwhile.

    One that another module answers for (:func:`~captum_groupcam.networks.accelerate`) counts once.

    Args:
        network (torch.nn.Module): The network.
        tell (Callable): Called before each pass with the number of rows. What it raises ends the
            pass.

    Examples::

        >>> import torch
        >>> network, rows = torch.nn.Linear(4, 2), []
        >>> with each_pass(network, rows.append):
        ...     _ = network(torch.ones(3, 4))
        >>> rows
        [3]
    """
    is_inside = False

    def outer(rows: int) -> None:
        nonlocal is_inside
        tell(rows)
        is_inside = True

    def leave(*_: Any) -> None:
        nonlocal is_inside
        is_inside = False

    def inner(rows: int) -> None:
        if not is_inside:
            tell(rows)

    handles = [
        network.register_forward_pre_hook(PassHook(outer)),
        network.register_forward_hook(leave, always_call=True),
    ]
    behind = getattr(network, "_orig_mod", None)
    # What torch.compile gives calls the network behind it with its hooks: they would be compiled.
    if behind is not None and not type(network).__module__.startswith("torch."):
        handles.append(behind.register_forward_pre_hook(PassHook(inner)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
