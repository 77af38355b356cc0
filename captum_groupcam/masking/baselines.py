"""Reference images: what the network sees where a mask hides the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from captum_groupcam._captum import without_class
from captum_groupcam.networks.tensors import check_tensor

__all__ = ["Baseline", "Baselines", "GaussianBlur", "gaussian_blur", "resolve_baseline"]
__all__ += ["for_inputs", "resolve_baselines"]

#: One input's baseline: a tensor of the input's shape (or with batch size 1), a number, or a
#: function of the input. ``None`` is Group-CAM's Gaussian blur.
Baseline: TypeAlias = Tensor | float | Callable[[Tensor], Tensor] | None
#: A baseline for all inputs, or a tuple with one for each.
Baselines: TypeAlias = Baseline | tuple[Baseline, ...]

_Given = TypeVar("_Given")
_SAMPLES = 8  # blurred at a time: memory must not grow with the batch
_RUN = 128  # positions along an axis that one product gives


def gaussian_blur(inputs: Tensor, kernel_size: int = 51, sigma: float = 50.0) -> Tensor:
    r"""Blurs every channel with a Gaussian, one axis after the other.

    The border is mirrored. Along an axis too short for the kernel, the kernel is cut to the
    largest odd size that the mirroring allows (``2 * size - 1``). Constant channels stay exactly
    what they are.

    Args:
        inputs (Tensor): N x C x spatial, with one to three spatial dimensions.
        kernel_size (int, optional): Length of the kernel in pixels; odd. Default: 51, as in
            Group-CAM.
        sigma (float, optional): Standard deviation in pixels. Default: 50.0, as in Group-CAM.

    Returns:
        Tensor: The blurred inputs, of the same shape, dtype and memory format.

    Raises:
        ValueError: If the kernel size is not odd and positive, sigma is not positive, or the
            input has not one to three spatial dimensions.

    Examples::

        >>> import torch
        >>> gaussian_blur(torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]]), kernel_size=3, sigma=50.0)
        tensor([[[0.0000, 0.3333, 0.3334, 0.3333, 0.0000]]])
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}.")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}.")
    if not 3 <= inputs.dim() <= 5:
        raise ValueError(
            "Expected inputs of shape N x C x spatial with one to three spatial dimensions, "
            f"got {tuple(inputs.shape)}."
        )
    blurred = torch.empty_like(inputs)
    for start in range(0, len(inputs), _SAMPLES):
        part = slice(start, start + _SAMPLES)
        blurred[part] = _blur(inputs[part], kernel_size, sigma)
    return blurred


def _blur(inputs: Tensor, kernel_size: int, sigma: float) -> Tensor:
    # Relative to its minimum a constant channel is exactly zero, so rounding of the kernel's sum
    # cannot turn "nothing to see here" into a difference that the network might score.
    floor = inputs.amin(dim=tuple(range(2, inputs.dim())), keepdim=True)
    blurred = (inputs - floor).to(torch.promote_types(inputs.dtype, torch.float32))
    with torch.autocast(inputs.device.type, enabled=False):
        for axis in range(2, blurred.dim()):
            radius = min(kernel_size // 2, blurred.shape[axis] - 1)
            offsets = torch.arange(-radius, radius + 1, device=blurred.device, dtype=blurred.dtype)
            # Less would be zero in float32, and zero by zero no number.
            kernel = torch.softmax(-0.5 * (offsets / max(sigma, 1e-6)) ** 2, dim=0)
            blurred = _convolved(blurred.movedim(axis, -1), kernel).movedim(-1, axis)
    return blurred.to(inputs.dtype) + floor


def _convolved(values: Tensor, kernel: Tensor) -> Tensor:
    """The last axis, mirrored at its ends, convolved with a symmetric kernel."""
    # A product of matrices for a run of positions at a time is many times as fast on the CPU as a
    # convolution with one channel.
    length, width = values.shape[-1], len(kernel)
    n_runs = -(-length // _RUN)
    run = -(-length // n_runs)
    device = values.device
    places = torch.arange(n_runs * run + width - 1, device=device) - width // 2
    mirrored = length - 1 - (length - 1 - places.abs()).abs()
    seen = values.index_select(-1, mirrored.clamp(min=0)).unfold(-1, run + width - 1, run)
    # Column by column, the kernel one place further down.
    ahead = torch.arange(run + width - 1, device=device).unsqueeze(1)
    ahead = ahead - torch.arange(run, device=device)
    weights = kernel[ahead.clamp(0, width - 1)].masked_fill((ahead < 0) | (ahead >= width), 0)
    # As one matrix: torch would multiply the overlapping runs one by one.
    blurred = seen.reshape(-1, run + width - 1) @ weights
    return blurred.view(*values.shape[:-1], -1)[..., :length]


@dataclass(frozen=True)
class GaussianBlur:
    """A baseline that shows the input heavily blurred: :func:`gaussian_blur` as an object.

    Args:
        kernel_size (int, optional): Length of the kernel in pixels; odd. Default: 51.
        sigma (float, optional): Standard deviation in pixels. Default: 50.0.

    Examples::

        >>> import torch
        >>> GaussianBlur(kernel_size=3)(torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]]))
        tensor([[[0.0000, 0.3333, 0.3334, 0.3333, 0.0000]]])
    """

    kernel_size: int = 51
    sigma: float = 50.0

    def __call__(self, inputs: Tensor) -> Tensor:
        """Blurs inputs of shape N x C x spatial."""
        return gaussian_blur(inputs, self.kernel_size, self.sigma)


def resolve_baselines(baselines: Baselines, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Turns every form of baseline into one tensor an input, of that input's shape.

    Args:
        baselines (Tensor, float, callable, None or tuple of these): A tensor has the shape of its
            input, or batch size 1; a number fills the input; a callable gets the input (N x C x
            spatial) and returns a tensor; None is :class:`GaussianBlur`. A tuple has one entry
            for each input, a single value serves all of them.
        inputs (tuple of Tensor): The inputs, N x C x spatial each.

    Returns:
        tuple of Tensor: One baseline an input, of its shape, dtype and device; views where no
        memory is needed.

    Raises:
        ValueError: If the number of baselines or a shape does not fit, or a baseline is NaN.
        TypeError: If a baseline has another type.

    Examples::

        >>> import torch
        >>> (baseline,) = resolve_baselines(0.5, (torch.zeros(2, 3, 4, 4),))
        >>> baseline.shape, baseline.unique()
        (torch.Size([2, 3, 4, 4]), tensor([0.5000]))
    """
    return tuple(map(resolve_baseline, for_inputs(baselines, len(inputs)), inputs))


def for_inputs(given: _Given | tuple[_Given, ...], n_inputs: int) -> tuple[_Given, ...]:
    """Gives each input its own: a tuple has one for each, anything else serves all.

    Args:
        given (Any or tuple): One, or a tuple of them.
        n_inputs (int): The number of inputs.

    Returns:
        tuple: One for each input.

    Raises:
        ValueError: If a tuple has another number.

    Examples::

        >>> for_inputs(0.5, 2), for_inputs((0.5, None), 2)
        ((0.5, 0.5), (0.5, None))
    """
    if not isinstance(given, tuple):
        return (given,) * n_inputs
    if len(given) != n_inputs:
        raise ValueError(
            f"A tuple of baselines has one for each of the {n_inputs} inputs, got {len(given)}."
        )
    return given


def resolve_baseline(baseline: Baseline, inputs: Tensor) -> Tensor:
    """Turns one input's baseline into a tensor of that input's shape.

    Args:
        baseline (Tensor, float, callable or None): As in :func:`resolve_baselines`.
        inputs (Tensor): N x C x spatial.

    Returns:
        Tensor: The baseline, of the input's shape, dtype and device; a view where no memory is
        needed.

    Raises:
        ValueError: If the shape does not fit, or the baseline is NaN or infinite.
        TypeError: If the baseline has another type.

    Examples::

        >>> import torch
        >>> resolve_baseline(lambda inputs: -inputs, torch.ones(1, 1, 2))
        tensor([[[-1., -1.]]])
    """
    if baseline is None:
        baseline = GaussianBlur()
    if isinstance(baseline, GaussianBlur):
        baseline = baseline(inputs)
    elif callable(baseline) and not isinstance(baseline, Tensor):
        baseline = baseline(inputs.clone())  # one that works in place changes a copy
    if isinstance(baseline, bool) or (
        isinstance(baseline, int) and abs(baseline) > torch.finfo(inputs.dtype).max
    ):
        raise ValueError(f"A baseline is a number of the input's range, got {str(baseline)[:40]}.")
    if isinstance(baseline, (int, float)):
        baseline = torch.full((), baseline, dtype=inputs.dtype, device=inputs.device)
    if not isinstance(baseline, Tensor):
        raise TypeError(
            "A baseline is a tensor, a number, None (Gaussian blur), or a callable that turns the "
            f"input into a tensor; got {type(baseline).__name__}."
        )
    check_tensor("The baseline", baseline)
    baseline = without_class(baseline.detach())
    if baseline.dim() and (
        baseline.shape[1:] != inputs.shape[1:] or baseline.shape[0] not in (1, inputs.shape[0])
    ):
        raise ValueError(
            f"Expected a baseline of shape {tuple(inputs.shape)}, or with batch size 1, "
            f"got {tuple(baseline.shape)}."
        )
    if not baseline.isfinite().all():
        raise ValueError("The baseline contains NaN or infinite values.")
    return baseline.to(inputs).expand_as(inputs)
