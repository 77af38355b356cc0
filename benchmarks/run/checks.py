"""What comes from data sets and measures, checked once where it comes in."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor

from ..data import Sample

__all__ = ["content_digest", "curve", "one_value"]


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


def one_value(name: str, values: Tensor) -> float:
    """The value of a score, for one sample.

    Raises:
        ValueError: If it is not one finite value.
    """
    if values.numel() != 1:
        raise ValueError(f"{name} should be one value a sample, and has {values.numel()}")
    if not values.isfinite().all():
        raise ValueError(f"{name} should be finite, and is {values.item()}")
    return float(values.item())


def curve(name: str, values: Tensor) -> list[float]:
    """The values of a curve, 1 x K, for one sample.

    Raises:
        ValueError: If it has another shape, or its values are not finite.
    """
    if values.dim() != 2 or len(values) != 1:
        raise ValueError(f"{name} should be a curve a sample, and has shape {tuple(values.shape)}")
    if not values.isfinite().all():
        raise ValueError(f"{name} should be finite, and has NaN or infinite values")
    return [round(value, 5) for value in values[0].tolist()]
