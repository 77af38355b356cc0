"""Whether a network is still what it was: weights, parts, settings, hooks, modes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam.networks.passes import PassHook

__all__ = ["State"]

#: What the bits of a value are read as.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
#: Settings of torch's modules that change no value of a frozen network.
_IRRELEVANT = {"inplace", "momentum", "training"}


class State:
    """A network as it is now.

    Args:
        network (torch.nn.Module): The network.
    """

    def __init__(self, network: Module) -> None:
        self._modules = list(network.modules())
        self._tensors = [*network.parameters(), *network.buffers()]
        self._parts, self._hooks = self._of_parts(), self._of_hooks()
        self._settings, self._values = self._of_settings(), self._of_values()

    def runs_otherwise(self) -> bool:
        """Whether a hook came, went or is another one, or a module changed its mode.

        Returns:
            bool: Whether it is so, at no cost to speak of.
        """
        return self._of_hooks() != self._hooks

    def is_changed(self) -> bool:
        """Whether a weight or a part is another one, as far as torch counts changes.

        Returns:
            bool: Whether it is so, at no cost to speak of.
        """
        return self._of_parts() != self._parts

    def has_same_values(self) -> bool:
        """Whether all weights have the same values, and layers the same settings.

        Returns:
            bool: Whether it is so, also where torch has not counted a change. All weights are read.
        """
        return self._of_settings() == self._settings and all(
            map(torch.equal, self._of_values(), self._values)
        )

    def _of_hooks(self) -> list[Any]:
        # The key of a hook is its number, which no other has.
        everywhere = torch.nn.modules.module
        return [
            *(tuple(everywhere._global_forward_hooks), tuple(everywhere._global_forward_pre_hooks)),
            *(
                (
                    m.training,
                    *m._forward_hooks,
                    None,
                    *(k for k, h in m._forward_pre_hooks.items() if not isinstance(h, PassHook)),
                    m.__dict__.get("forward"),
                )
                for m in self._modules
            ),
        ]

    def _of_parts(self) -> list[tuple[int, ...]]:
        held = [
            tuple(map(id, (*m._parameters.values(), *m._buffers.values(), *m._modules.values())))
            for m in self._modules
        ]
        values = [
            (tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version)
            for tensor in self._tensors
        ]
        return [*held, *values]

    def _of_settings(self) -> list[Any]:
        return [
            [
                (name, value)
                for name, value in vars(module).items()
                if isinstance(value, (bool, int, float, str, tuple))
                and not (name.startswith("_") or name in _IRRELEVANT)
            ]
            for module in self._modules
            if _is_of_torch(module)
        ]

    def _of_values(self) -> list[Tensor]:
        sums: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for tensor in self._tensors:
            for part in _sums(tensor):
                sums.setdefault((part.device, part.dtype), []).append(part)
        return [torch.cat(parts) for parts in sums.values()]


def _is_of_torch(module: Module) -> bool:
    """Whether a layer of torch reads its settings; other modules may count or cache."""
    return any(
        kind.__module__.startswith("torch.nn.modules.")
        and not kind.__module__.endswith((".module", ".container"))
        for kind in type(module).__mro__
    )


def _sums(tensor: Tensor) -> Iterator[Tensor]:
    """Whole numbers that change with any value, and with the order of rows or columns."""
    tensor = tensor.detach()
    if tensor.is_meta or tensor.layout is not torch.strided:
        return
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.dim() > 2 and not tensor.is_contiguous():
        tensor = tensor.movedim(1, -1)  # channels last need no copy then
    bits = tensor.contiguous().view(_BITS[tensor.element_size()])
    if bits.dim() < 2:
        yield bits.reshape(-1)
    else:
        # Not wider than needed, which takes four times as long. A sum may run over, and still no
        # value changes without it.
        wide = torch.promote_types(bits.dtype, torch.int32)
        yield from (bits.flatten(1).sum(axis, dtype=wide) for axis in (0, 1))
