"""What the functions around Captum's methods share: one channel, seeds, copies of a network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType

__all__ = [
    "clipped",
    "each_sample",
    "largest_magnitude",
    "linked_copy",
    "replace_modules",
    "scores_of",
    "seeded",
    "signed_sum",
    "sum_of_magnitudes",
]


def largest_magnitude(attributions: Tensor) -> Tensor:
    """As Simonyan et al. 2014 (section 3.1) reduce gradients."""
    return attributions.abs().amax(1, keepdim=True)


def sum_of_magnitudes(attributions: Tensor) -> Tensor:
    """As the package ``saliency`` draws integrated gradients and SmoothGrad."""
    return attributions.abs().sum(1, keepdim=True)


def signed_sum(attributions: Tensor) -> Tensor:
    """What the channels of a position add to the output together."""
    return attributions.sum(1, keepdim=True)


def each_sample(
    inputs: Tensor, target: TargetType, explain: Callable[[Tensor, TargetType], Tensor]
) -> Tensor:
    """Explains one sample after the other, each with its own target, and joins the maps."""
    return torch.cat(
        [
            explain(inputs[index : index + 1], _target_of(target, index))
            for index in range(len(inputs))
        ]
    )


def scores_of(model: Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A network whose inputs may be float32, as Captum's noise is, and whose outputs are."""

    def forward(inputs: Tensor) -> Tensor:
        outputs: Tensor = model(inputs.to(dtype))
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))

    return forward


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds what Captum draws from: torch, on the CPU and the device, and numpy.

    The caller forks torch's generators; numpy's is left as it was.
    """
    before = np.random.get_state()  # noqa: NPY002 - Captum's
    generators = [torch.default_generator]
    if device.type == "cuda":  # ``torch.manual_seed`` would drop the seed that waits for CUDA
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    for generator in generators:
        generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


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


def _target_of(target: TargetType, index: int) -> TargetType:
    """The target of one sample."""
    if isinstance(target, list):
        return [target[index]]
    if isinstance(target, Tensor) and target.numel() > 1:
        return target[index : index + 1]
    return target
