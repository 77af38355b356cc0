"""What methods that go by the modules of a network share: copies of it, modules replaced."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn import Module

__all__ = ["FOR_ANY_NETWORK", "clipped", "linked_copy", "replace_modules"]

#: What errors of methods that need rules for modules recommend.
FOR_ANY_NETWORK = (
    "integrated_gradients and gradient_shap, whose values add up for any network, or Grad-CAM and "
    "its kind"
)


def linked_copy(model: Module) -> Module:
    """A copy of the modules only: they share their weights, but each can be given others."""
    memo: dict[int, object] = {id(buffer): buffer.detach() for buffer in model.buffers()}
    for parameter in model.parameters():
        alike = torch.nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        memo[id(parameter)] = alike
    return copy.deepcopy(model, memo)


def replace_modules(model: Module, replaced: Callable[[Module], Module | None]) -> None:
    """Replaces some modules by others; None leaves one as it is."""
    known: dict[int, Module | None] = {}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # named_children() skips second names
            if child is None:
                continue
            if id(child) not in known:
                known[id(child)] = replaced(child)
            other = known[id(child)]
            if other is not None:
                setattr(parent, name, other)


def clipped(module: Module) -> Module | None:
    """What Captum takes for a ReLU instead of ReLU6; None for other modules."""
    if not isinstance(module, torch.nn.ReLU6):
        return None
    relu = torch.nn.ReLU()
    relu.forward = F.relu6  # type: ignore[method-assign]
    return relu
