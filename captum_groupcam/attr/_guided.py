"""Guided backpropagation of every network that has modules of ReLU or ReLU6."""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from captum.attr import GuidedBackprop
from torch import Tensor
from torch.nn import Module

from captum_groupcam._method import Target

__all__ = ["guided_gradients"]


class _GuidedReLU6(torch.nn.ReLU):
    """ReLU6 under the type that Captum guides."""

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu6(inputs, self.inplace)


def guided_gradients(model: Module, inputs: Tensor, target: Target) -> Tensor:
    """Captum's guided backpropagation, on a copy where it would pass over ReLU6."""
    if any(isinstance(module, torch.nn.ReLU6) for module in model.modules()):
        # The copy is one of the modules only: they share their weights.
        tensors = (*model.parameters(), *model.buffers())
        model = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
        for parent in list(model.modules()):
            for name, child in parent._modules.items():  # named_children() skips second names
                if isinstance(child, torch.nn.ReLU6):
                    setattr(parent, name, _GuidedReLU6(child.inplace))
    if not any(isinstance(module, torch.nn.ReLU) for module in model.modules()):
        raise ValueError(
            "Guided backpropagation changes what ReLU modules pass back; this network has none."
        )
    return cast(Tensor, GuidedBackprop(model).attribute(inputs, target))
