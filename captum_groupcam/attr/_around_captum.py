"""What the functions around Captum's methods share: one channel, samples, regions, seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr.superpixels import Regions, superpixels
from captum_groupcam.masking.call import without_rounding

__all__ = [
    "by_regions",
    "deviation_of",
    "each_sample",
    "largest_magnitude",
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
    magnitudes = attributions.abs().sum(1, keepdim=True)
    return without_rounding(attributions.sum(1, keepdim=True), magnitudes)


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


def by_regions(
    attribute: Callable[..., Any],
    inputs: Tensor,
    target: TargetType,
    division: tuple[int, Regions],
    *,
    seed: int = 0,
    **options: Any,
) -> Tensor:
    """Explains each sample by regions of its own; every one has the same value in all channels."""

    def explain(sample: Tensor, of_sample: TargetType) -> Tensor:
        mask = superpixels(sample, *division)
        if not mask.any():
            raise ValueError(
                f"The image is one region, n_segments={division[0]}: there is nothing to compare. "
                "Choose a higher n_segments, or regions='grid'."
            )
        with seeded(seed, sample.device):
            attributions = attribute(sample, target=of_sample, feature_mask=mask, **options)
        return cast(Tensor, attributions)[:, :1].to(sample.device)

    return each_sample(inputs, target, explain)


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


def deviation_of(sample: Tensor, noise_level: float) -> float:
    """The standard deviation of noise that is a share of the range of a sample's values."""
    return float(sample.max() - sample.min()) * noise_level


def _target_of(target: TargetType, index: int) -> TargetType:
    """The target of one sample."""
    if isinstance(target, list):
        return [target[index]]
    if isinstance(target, Tensor) and target.numel() > 1:
        return target[index : index + 1]
    return target
