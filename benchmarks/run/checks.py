"""What comes from data sets and measures, checked once where it comes in."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from torch import Tensor

from ..data import Sample

__all__ = ["content_digest", "each_curve", "each_value"]


def content_digest(sample: Sample) -> str:
    """Tells a sample's content from another: the picture's file (or pixels) and the annotation."""
    digest = hashlib.blake2b(digest_size=6)
    targets = tuple(map(int, sample.targets))
    about = (sample.image.size, targets, sample.label, bool(sample.difficult))
    digest.update(repr(about).encode("utf-8", "surrogatepass"))
    if sample.boxes is not None:
        digest.update(repr(sample.boxes.tolist()).encode())
    if sample.masks is not None:
        digest.update(np.packbits(sample.masks.cpu().numpy()).tobytes())
    # Pixels of a compressed file depend on the decoder.
    pixels = sample.image.tobytes() if sample.file is None else sample.file.read_bytes()
    digest.update(len(pixels).to_bytes(8, "big") + pixels)
    return digest.hexdigest()


def each_value(name: str, values: Tensor, count: int) -> list[float]:
    """The values of a score, one for each sample.

    Args:
        name (str): The score's name.
        values (Tensor): The values.
        count (int): Number of samples.

    Raises:
        ValueError: If they are not finite, or not one for each sample.
    """
    if values.numel() != count:
        raise ValueError(
            f"{name} should be one value a sample, and has {values.numel()}"
            + (f" for {count} samples" if count > 1 else "")
        )
    found: list[float] = values.flatten().tolist()
    for value in found:
        if not math.isfinite(value):
            raise ValueError(f"{name} should be finite, and is {value}")
    return found


def each_curve(name: str, values: Tensor, count: int) -> list[list[float]]:
    """The values of a curve, count x K, for each sample.

    Args:
        name (str): The curve's name.
        values (Tensor): The values.
        count (int): Number of samples.

    Raises:
        ValueError: If they have another shape, or are not finite.
    """
    if values.dim() != 2 or len(values) != count:
        raise ValueError(f"{name} should be a curve a sample, and has shape {tuple(values.shape)}")
    if not values.isfinite().all():
        raise ValueError(f"{name} should be finite, and has NaN or infinite values")
    return [[round(value, 5) for value in one] for one in values.tolist()]
