"""What methods that guide ReLU modules pass over: functions, and other activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum
from captum_groupcam.threads import of_this_thread

__all__ = ["only_modules_guided"]

#: Activations beside ReLU, by what autograd calls them.
_OTHERS = {
    "CeluBackward": "CELU",
    "EluBackward": "ELU or SELU",
    "GeluBackward": "GELU",
    "HardswishBackward": "Hardswish",
    "HardtanhBackward": "Hardtanh",
    "LeakyReluBackward": "LeakyReLU",
    "MishBackward": "Mish",
    "PreluKernelBackward": "PReLU",
    "RreluWithNoiseBackward": "RReLU",
    "SiluBackward": "SiLU",
}


@contextmanager
def only_modules_guided(model: Module, title: str) -> Iterator[None]:
    """Looks at the graph of the forward pass inside, and refuses it where a ReLU is not a module.

    Args:
        model (torch.nn.Module): The network, without ``DataParallel`` or ``torch.compile``.
        title (str): What the method is called in messages.

    Raises:
        ValueError: If a ReLU between input and output is no call of a ReLU module, or there is no
            call of one.

    Warns:
        UserWarning: If there are other activations, which are not guided.
    """
    called: list[Any] = []
    between: list[tuple[Any, str]] = []

    def note(_module: Module, _args: Any, output: Any) -> None:
        called.append(output.grad_fn if isinstance(output, Tensor) else None)

    def look(_module: Module, args: Any, output: Any) -> None:
        # Before the backward pass, which frees what nodes have saved.
        if isinstance(output, Tensor) and args and isinstance(args[0], Tensor):
            between.extend((node, _kind(node)) for node in _nodes_between(args[0], output))

    handles = [
        module.register_forward_hook(of_this_thread(note))
        for module in model.modules()
        if isinstance(module, torch.nn.ReLU)
    ]
    try:
        handles.append(model.register_forward_hook(of_this_thread(look)))
        yield
    finally:
        for handle in handles:
            handle.remove()
    guided = set(called)
    kinds = [kind for node, kind in between if kind and node not in guided]
    if not called:
        raise ValueError(
            f"{title} changes what ReLU modules pass back; this network has none that it calls."
        )
    if "ReLU" in kinds:
        raise ValueError(
            f"{title} changes what ReLU modules pass back, and would pass over the "
            f"{kinds.count('ReLU')} that this network computes by functions such as F.relu: the "
            "map would be wrong. Use modules in the network, nn.ReLU or nn.ReLU6; or saliency, "
            "group_cam or another method that explains any network."
        )
    if kinds:
        _captum.warn(
            f"{title} changes what ReLU modules pass back. The other activations of this network "
            f"pass back plain gradients: {', '.join(sorted(set(kinds)))}."
        )


def _kind(node: Any) -> str:
    """The activation that a node is of, "ReLU" also where its lower bound is zero; or ""."""
    name = node.name().rstrip("0123456789")
    relu = (
        name == "ReluBackward"
        or (name == "HardtanhBackward" and node._saved_min_val == 0)
        or (name == "ThresholdBackward" and node._saved_threshold == 0)
        # With an upper bound it may be a picture that is kept in its range.
        or (name == "ClampMinBackward" and _is_zero(node, "_saved_min"))
        or (name == "ClampBackward" and _is_zero(node, "_saved_min") and node._saved_max is None)
    )
    return "ReLU" if relu else _OTHERS.get(name, "")


def _is_zero(node: Any, saved: str) -> bool:
    bound = getattr(node, saved, None)
    return isinstance(bound, (int, float)) and bound == 0


def _nodes_between(inputs: Tensor, output: Tensor) -> list[Any]:
    """The nodes of the output's graph that lead to the input, each once."""
    if output.grad_fn is None or not inputs.requires_grad:
        return []
    view: Any = inputs.view_as(inputs).grad_fn
    start = view.next_functions[0][0]
    leads: dict[Any, bool] = {start: True}
    stack = [output.grad_fn]
    while stack:
        node = stack[-1]
        below = [other for other, _ in node.next_functions if other is not None]
        ahead = [other for other in below if other not in leads]
        if ahead and node not in leads:
            leads[node] = False  # entered
            stack.extend(ahead)
            continue
        stack.pop()
        leads[node] = leads.get(node, False) or any(leads.get(other, False) for other in below)
    return [node for node, lead in leads.items() if lead]
