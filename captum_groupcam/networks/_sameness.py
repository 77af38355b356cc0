"""Whether outputs are the same to rounding, column by column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_groupcam.networks.outputs import tensors_of
from captum_groupcam.threads import reached_modules

__all__ = ["LOW", "Rounding", "floating", "precision_of"]

#: Where many layers round more away than a fold may change.
LOW = {torch.float16, torch.bfloat16}
#: How often the inputs are changed a little.
_DRAWS = 3


@dataclass(frozen=True)
class Rounding:
    """How far the values in each column of some outputs may lie apart and still be the same.

    Values are the same where they differ by no more than they would if each had changed by a share
    of the square root of the precision (of 16 bits, 64 times it), or if the inputs had. So a column
    of small values is compared by its own measure, however large others are.

    Attributes:
        responses (tuple of Tensor): For each output, how far each column (dimension 1) moves by a
            change of the inputs, divided by the size of that change. Default: (), not at all.
    """

    responses: tuple[Tensor, ...] = ()

    @classmethod
    def measured(
        cls,
        run: Callable[[Sequence[Any]], list[Tensor]],
        args: Sequence[Any],
        expected: list[Tensor],
    ) -> Rounding:
        """Changes the inputs a little, and looks how far the outputs move.

        Args:
            run (Callable): Gives the outputs for arguments.
            args (sequence): The arguments, tensors among them.
            expected (list of Tensor): Their outputs, N x ... each.

        Returns:
            Rounding: What is the same as these outputs; nothing is known of outputs whose shapes
            change.
        """
        generator = torch.Generator().manual_seed(0)
        moved: list[list[Tensor]] = []
        for draw in range(_DRAWS):
            found = run([_changed(arg, generator, alike=not draw) for arg in args])
            if [one.shape for one in found] != [one.shape for one in expected]:
                return cls()
            moved.append([_columns(a - b) for a, b in zip(found, expected, strict=True)])
        size = max((_share(a.dtype) for a in args if _is_floating(a)), default=1.0)
        return cls(
            tuple(
                torch.stack(draws).amax(0).nan_to_num(0, 0, 0) / size
                for draws in zip(*moved, strict=True)
            )
        )

    def difference(self, found: list[Tensor], expected: list[Tensor]) -> str | None:
        """Says what differs by more than rounding.

        Args:
            found (list of Tensor): Outputs.
            expected (list of Tensor): What they should be.

        Returns:
            str or None: What differs most; None if they are the same.
        """
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (found, expected)]
        if shapes[0] != shapes[1]:
            return f"the outputs have the shapes {shapes[0]}, not {shapes[1]}."
        known = len(self.responses) == len(expected)
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            if not other.numel():
                continue
            response = self.responses[index].to(other.device) if known else None
            if response is not None and response.dim() not in (0, other.dim()):
                response = response.amax()
            if response is not None and response.dim() and response.shape[1] != other.shape[1]:
                response = response.amax()
            one, other = (tensor.to(_wider(tensor.dtype)) for tensor in (one, other))
            allowed = other.abs() if response is None else other.abs() + response.to(other)
            allowed = allowed * _tolerance(expected[index].dtype, other.device)
            excess = (one - other).abs() - allowed
            same = (one == other) | (one.isnan() & other.isnan())
            excess = excess.nan_to_num(torch.inf).masked_fill(same, -1)
            worst = int(excess.argmax())
            if excess.flatten()[worst] > 0:
                values = float(one.flatten()[worst]), float(other.flatten()[worst])
                return f"an output is {values[0]:.6g} instead of {values[1]:.6g}."
        return None


def floating(output: Any) -> list[Tensor]:
    """The outputs of a network that can differ by rounding.

    Args:
        output (Any): What it returned: a tensor or several, in any form.

    Returns:
        list of Tensor: Its floating-point tensors, N x ... each.
    """
    found = [output] if isinstance(output, Tensor) else list(tensors_of(output).values())
    return [tensor for tensor in found if tensor.is_floating_point()]


def precision_of(network: object, *tensors: Tensor) -> torch.dtype:
    """The coarsest precision in which a network computes, as far as it shows.

    Args:
        network (torch.nn.Module or Callable): The network, or a function that calls one.
        *tensors (Tensor): What it takes and gives.

    Returns:
        torch.dtype: Of tensors, parameters and autocast; bfloat16 for quantised layers, whose 8
        bits are about as coarse.

    Examples::

        >>> precision_of(torch.nn.Linear(2, 2).half(), torch.ones(1, 2))
        torch.float16
    """
    modules = reached_modules(network)
    found = [tensor.dtype for tensor in tensors]
    found += [one.dtype for module in modules for one in module.parameters(recurse=False)]
    kinds = {tensor.device.type for tensor in tensors}
    found += [torch.get_autocast_dtype(k) for k in kinds if torch.is_autocast_enabled(k)]
    if any("quantized" in type(module).__module__ for module in modules):
        found.append(torch.bfloat16)
    floating = [dtype for dtype in found if dtype.is_floating_point]
    return max(floating, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)


def _changed(arg: Any, generator: torch.Generator, *, alike: bool) -> Any:
    """An argument with its values closer to zero by a share of up to the root of its precision."""
    if not _is_floating(arg) or not arg.numel():
        return arg.clone() if isinstance(arg, Tensor) else arg
    shares = torch.ones(()) if alike else torch.rand(arg.shape, generator=generator)
    shares = shares.to(arg.device, arg.dtype) * _share(arg.dtype)
    # Nothing is a share of zero.
    return arg * (1 - shares) if arg.any() else arg + shares


def _is_floating(arg: Any) -> bool:
    return isinstance(arg, Tensor) and arg.is_floating_point()


def _share(dtype: torch.dtype) -> float:
    """The share by which inputs are changed."""
    return float(torch.finfo(dtype).eps ** 0.5)


def _tolerance(dtype: torch.dtype, device: torch.device) -> float:
    """The share that makes no difference, at the precision in which a device computes."""
    precision = torch.finfo(dtype).eps
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        precision = max(precision, 2.0**-10)  # of TF32
    # Of 16 bits, the root leaves less than many layers round away.
    return float(max(precision**0.5, 64 * precision))


def _wider(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _columns(tensor: Tensor) -> Tensor:
    """The largest magnitude in each column, with as many dimensions; of a vector, in all."""
    tensor = tensor.to(_wider(tensor.dtype)).abs()
    if tensor.dim() < 2 or not tensor.numel():
        return tensor.amax() if tensor.numel() else tensor.new_zeros(())
    return tensor.amax([axis for axis in range(tensor.dim()) if axis != 1], keepdim=True)
