"""Which linear layers run in a forward pass, on what, and with which weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from typing_extensions import Self

from captum_groupcam.threads import n_function_modes

__all__ = ["LinearCall", "LinearCalls", "WatchedFunctions"]


class LinearCall(NamedTuple):
    """One call of a linear layer, or of a 1 x 1 convolution of pooled activations."""

    inputs: Tensor
    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(
        cls,
        input: Tensor,  # noqa: A002 - torch's name
        weight: Tensor,
        bias: Tensor | None = None,
        _stride: Any = 1,
        _padding: Any = 0,
        _dilation: Any = 1,
        groups: int = 1,
        **_: Any,
    ) -> LinearCall:
        """Binds the arguments by their names; what has one position loses its axes.

        The weight of a grouped convolution gets zeros where a class does not see a channel.
        """
        if weight.dim() > 2 and weight[0, 0].numel() == input[0, 0].numel() == 1:
            input, weight = input.flatten(1), weight.flatten(1)  # noqa: A001
            if groups > 1:
                weight = torch.block_diag(*weight.chunk(groups))  # type: ignore[no-untyped-call]
        return cls(input, weight, bias)

    def parameters(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the dtype of another tensor."""
        return self.weight.to(like), None if self.bias is None else self.bias.to(like)

    def close(self, found: Tensor, expected: Tensor) -> bool:
        """Whether values are equal up to the rounding of the call's precision."""
        tolerance = torch.finfo(self.inputs.dtype).eps ** 0.5
        error = (found.to(expected) - expected).norm()
        return bool(error <= tolerance * expected.norm())


class WatchedFunctions(TorchFunctionMode):
    """Sees the functions of torch that run in this thread: ``__torch_function__`` does."""

    def __init__(self) -> None:
        super().__init__()
        self._outside = 0

    def __enter__(self) -> Self:
        self._outside = n_function_modes()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        # An interrupt can come while torch has taken the mode off for a moment.
        if n_function_modes() > self._outside:
            super().__exit__(*error)  # type: ignore[no-untyped-call]


class LinearCalls(WatchedFunctions):
    """Records every call of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[LinearCall] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (F.linear, F.conv1d, F.conv2d, F.conv3d):
            self.calls.append(LinearCall.of(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))
