"""Tensors that have values to compute with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.masked import is_masked_tensor

__all__ = ["check_samples", "check_tensor"]


def check_tensor(what: str, value: Any) -> None:
    """Refuses what is not a tensor, or one that only some operations take.

    Args:
        what (str): What it is, for the message.
        value (Any): The value.

    Raises:
        TypeError: If it is not a tensor, or masked, nested, sparse, quantised, complex, without
            values (on the device "meta") or of a type that torch only stores.

    Examples::

        >>> check_tensor("The input", torch.ones(2).to_sparse())
        Traceback (most recent call last):
        TypeError: The input must be a dense tensor of real numbers, got a sparse one, ...
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{what} must be a tensor, got {type(value).__name__}.")
    if is_masked_tensor(value):
        raise TypeError(
            f"{what} is a masked tensor, and networks take plain ones: say what stands for masked "
            "values, as in tensor.to_tensor(0.0)."
        )
    kinds = {
        "nested": value.is_nested,
        "sparse": not value.is_nested and value.layout is not torch.strided,
        "quantised": value.is_quantized,
        "complex": value.is_complex(),
        "valueless (meta)": value.is_meta,
        "8-bit": value.is_floating_point() and value.element_size() == 1,
    }
    for kind, found in kinds.items():
        if found:
            raise TypeError(
                f"{what} must be a dense tensor of real numbers, got a {kind} one, {value.dtype}."
            )


def check_samples(what: str, value: Any) -> None:
    """Refuses what is not a tensor with finite values of at least one sample.

    Args:
        what (str): What it is, for the message.
        value (Any): The value, N x ...

    Raises:
        TypeError: As :func:`check_tensor`.
        ValueError: If it has no samples or no values, or some are not finite; it names the samples.

    Examples::

        >>> check_samples("The input", torch.tensor([[1.0], [torch.nan]]))
        Traceback (most recent call last):
        ValueError: The input contains NaN or infinite values in samples [1].
    """
    check_tensor(what, value)
    if value.dim() == 0 or value.numel() == 0:
        raise ValueError(
            f"{what} has no samples or no values: expected N x C x spatial, got the shape "
            f"{tuple(value.shape)}."
        )
    finite = value.isfinite().flatten(1).all(1) if value.dim() > 1 else value.isfinite()
    if not finite.all():
        raise ValueError(
            f"{what} contains NaN or infinite values in samples "
            f"{(~finite).nonzero().flatten().tolist()}."
        )
