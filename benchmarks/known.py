"""Maps of known quality: the truth, and what is made of it, to judge measures by."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam.masking.targets import TargetType
from captum_groupcam.methods import METHODS, Method

from .controls import shift as moved

__all__ = ["truth", "truth_is"]

_TRUTH: ContextVar[Tensor | None] = ContextVar("truth", default=None)


@contextmanager
def truth_is(objects: Tensor | None) -> Iterator[None]:
    """Tells :func:`truth` where the objects are, N x 1 x H x W, as long as it lasts."""
    token = _TRUTH.set(objects)
    try:
        yield
    finally:
        _TRUTH.reset(token)


def truth(
    _model: Module,
    inputs: Tensor,
    _target: TargetType,
    *,
    shift: float = 0.0,
    noise: float = 0.0,
    blur: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """A control that knows the truth: 1 where the object is, else 0, or a worse map made of it.

    Args:
        inputs (Tensor): N x C x H x W.
        shift (float, optional): How far it is moved, in a random direction, as a share of the
            sides; what leaves the image comes in again. Default: 0.0.
        noise (float, optional): Share of the pixels that get a random value in [0, 1] instead.
            Default: 0.0.
        blur (float, optional): Standard deviation of a Gaussian that it is blurred by, as a share
            of the height. Default: 0.0.
        seed (int, optional): Seed of direction and noise, together with the sample itself.
            Default: 0.

    Raises:
        ValueError: If it is not known where the objects are, or a share is out of range.
    """
    objects = _TRUTH.get()
    if objects is None or objects.shape[-2:] != inputs.shape[-2:]:
        raise ValueError("The truth is known only in runs over data with boxes or masks.")
    if not (0 <= shift <= 1 and 0 <= noise <= 1 and 0 <= blur <= 1):
        raise ValueError(f"Expected shares from 0 to 1, got {shift=}, {noise=}, {blur=}.")
    height, width = inputs.shape[-2:]
    maps = []
    for sample, mask in zip(inputs.cpu(), objects.cpu(), strict=True):
        fingerprint = zlib.crc32(sample.float().contiguous().numpy().tobytes())
        generator = torch.Generator().manual_seed(seed + fingerprint)
        angle = 2 * math.pi * torch.rand((), generator=generator).item()
        offset = [round(shift * height * math.sin(angle)), round(shift * width * math.cos(angle))]
        made = moved(mask.unsqueeze(0), torch.tensor([offset]))[0].float()
        if blur:
            sigma = blur * height
            size = 2 * min(math.ceil(3 * sigma), (min(height, width) - 1) // 2) + 1
            from torchvision.transforms.functional import gaussian_blur  # takes seconds to import

            made = gaussian_blur(made, [size, size], [sigma, sigma])
        replaced = torch.rand(made.shape, generator=generator) < noise
        maps.append(torch.where(replaced, torch.rand(made.shape, generator=generator), made))
    return torch.stack(maps).to(inputs)


METHODS["truth"] = Method(
    "truth", "The truth", truth, passes=lambda: 0, kind="control", shares_batches=True
)
