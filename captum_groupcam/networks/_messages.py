"""What errors say of shapes, positions and outputs."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn import Module

__all__ = ["no_tensor", "partly", "sizes"]


def no_tensor(model: Module, output: Any) -> str:
    """What to do about an output that is not a tensor."""
    if hasattr(output, "items"):
        named = dict(output.items())
    elif isinstance(output, (tuple, list)):
        named = dict(enumerate(output))
    else:
        named = {}
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    which = ", ".join(f"{key!r} ({sizes(value.shape)})" for key, value in tensors.items())
    example = repr(next(iter(tensors))) if tensors else "lambda output: ..."
    return (
        f"{type(model).__name__} gives a {type(output).__name__}"
        f"{f' with the tensors {which}' if which else ''}. Say which tensor is explained: "
        f"captum_groupcam.networks.SelectOutput(model, {example})."
    )


def partly(positions: Tensor) -> str:
    return f"the output depends on {int(positions.sum())} of its {positions.numel()} positions"


def sizes(shape: Any) -> str:
    return " x ".join(map(str, shape)) if math.prod(shape) >= 0 else ""
