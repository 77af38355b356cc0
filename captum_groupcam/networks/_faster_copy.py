"""The faster copy of a network: how it is asked, and the steps that make it faster."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module

from captum_groupcam.naming import one_line
from captum_groupcam.networks._folding import foldable_pairs, fused, put
from captum_groupcam.networks._in_place import overwriting_activations
from captum_groupcam.networks._padding import foldable_paddings, padding
from captum_groupcam.networks._sameness import LOW, Rounding, floating

__all__ = ["FasterCopy", "faster_copy"]

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass
class FasterCopy:
    """The copy, and how it is asked. No module, so that it is not part of one."""

    network: Module
    channels_last: bool = False
    compiled: Callable[..., Any] | None = None
    batch_size: int = 0
    rounding: Rounding = field(default_factory=Rounding)
    folded: int = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.channels_last:
            args = tuple(map(_channels_last, args))
        alone = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        if self.compiled is None or not alone:
            return self.network(*args, **kwargs)
        parts = [self._pass(part) for part in args[0].split(self.batch_size)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _pass(self, rows: Tensor) -> Any:
        """One shape alone is compiled."""
        assert self.compiled is not None
        missing = self.batch_size - len(rows)
        if not missing:
            return self.compiled(rows)
        if missing >= len(rows):
            return self.network(rows)
        padded = torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])
        return self.compiled(_channels_last(padded) if self.channels_last else padded)[: len(rows)]


def faster_copy(
    network: Module, args: tuple[Any, ...], compiled_batch_size: int | None
) -> tuple[FasterCopy, list[str]]:
    """Copies a network, and takes each step that makes the copy faster and changes no output.

    Args:
        network (torch.nn.Module): The network, in evaluation mode. It is not changed, and not run.
        args (tuple): What it takes, tensors among them.
        compiled_batch_size (int, optional): What the copy is compiled for; None, it is not.

    Returns:
        tuple of FasterCopy and list of str: The copy, and what is wrong with the steps that failed.

    Raises:
        TypeError: If the network gives no tensors.
        ValueError: If it cannot be copied, fails with these arguments, or gives NaN or infinite
            values.
    """
    first = next(arg for arg in args if isinstance(arg, Tensor))
    with torch.inference_mode(False), torch.no_grad(), _undisturbed(first.device):
        trial = _Trial(FasterCopy(_copied(network)), args)
        trial.fold()
        trial.pad()
        trial.overwrite()
        trial.channels_last()
        if compiled_batch_size is not None:
            trial.compile(compiled_batch_size)
    return trial.copied, trial.problems


class _Trial:
    """Takes steps that make a copy faster, each back if the outputs change."""

    def __init__(self, copied: FasterCopy, args: tuple[Any, ...]) -> None:
        self.copied, self.args = copied, args
        self.problems: list[str] = []
        with foldable_pairs(copied.network) as self.pairs:
            try:
                output = self._run()
            except Exception as error:
                raise ValueError(
                    f"The network fails with the given inputs: {one_line(error)}"
                ) from error
        self.expected = floating(output)
        if not self.expected:
            raise TypeError(
                f"The network returned {type(output).__name__}, expected a tensor or several. Wrap "
                "it so that it does: captum_groupcam.networks.SelectOutput."
            )
        if not all(tensor.isfinite().all() for tensor in self.expected):
            raise ValueError("The network gives NaN or infinite values for the given inputs.")
        copied.rounding = Rounding.measured(
            lambda args: floating(copied(*args)), self.args, self.expected
        )

    def fold(self) -> None:
        """Folds batch normalisations."""
        failed = "Batch normalisation is not folded"
        if not self.pairs:
            return
        if any(t.dtype in LOW for t in self.copied.network.parameters()):
            problem = self._folded_in_float32()
            if problem is not None:
                self.problems.append(f"{failed}: {problem}")
                return

        def replaced() -> Iterator[tuple[Module, Module]]:
            for convolution, norm in self.pairs:
                yield convolution, fused(convolution, norm)
                yield norm, nn.Identity()

        if self._replace(failed, replaced):
            self.copied.folded = len(self.pairs)

    def pad(self) -> None:
        """Lets convolutions do the zero padding before them."""
        with foldable_paddings(self.copied.network) as pairs:
            self._run()

        def replaced() -> Iterator[tuple[Module, Module]]:
            for pad, convolution in pairs:
                yield pad, nn.Identity()
                yield convolution, padding(convolution, pad)

        if pairs:
            self._replace("Zero padding stays a layer of its own", replaced)

    def _folded_in_float32(self) -> str | None:
        """What differs in float32, where 16 bits would round more away than a fold may change."""
        twins: dict[int, Any] = {}
        whole = copy.deepcopy(self.copied.network, twins).float()

        def run(args: Sequence[Any]) -> list[Tensor]:
            return floating(whole(*args))

        args = [a.float() if isinstance(a, Tensor) and a.dtype in LOW else a for a in self.args]
        try:
            expected = run([a.clone() if isinstance(a, Tensor) else a for a in args])
            rounding = Rounding.measured(run, args, expected)
            for pair in self.pairs:
                convolution, norm = (twins[id(module)] for module in pair)
                put(whole, convolution, fused(convolution, norm))
                put(whole, norm, nn.Identity())
            return rounding.difference(run(args), expected)
        except Exception as error:  # it may want 16 bits
            return one_line(error)

    def overwrite(self) -> None:
        """Lets activations overwrite what a convolution has made for them alone."""
        with overwriting_activations(self.copied.network) as activations:
            self._run()

        def set_to(inplace: bool) -> None:
            for activation in activations:
                activation.inplace = inplace  # type: ignore[assignment]

        if activations:
            self._try(
                "Activations do not work in place", lambda: set_to(True), lambda: set_to(False)
            )

    def channels_last(self) -> None:
        """Brings weights and images to channels last, if there is a convolution of images."""
        network = self.copied.network
        if not any(isinstance(m, (nn.Conv2d, nn.Conv3d)) for m in network.modules()):
            return

        def step() -> None:
            self.copied.channels_last = True
            nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)

        def back() -> None:
            self.copied.channels_last = False
            nn.utils.convert_conv2d_weight_memory_format(network, torch.contiguous_format)

        self._try("The layout of images stays as it is", step, back)

    def compile(self, batch_size: int) -> None:
        """Compiles it for batches of one size."""
        if len(self.args) != 1 or len(self.expected) != 1:
            self.problems.append("The network is not compiled: it takes or gives several things.")
            return
        (rows,), (expected,) = self.args, self.expected
        samples = torch.arange(batch_size, device=rows.device) % len(rows)
        self.args, self.expected = (rows[samples],), [expected[samples]]

        def step() -> None:
            self.copied.batch_size = batch_size
            # Without the weights as arguments of what is compiled, they can be laid out ahead.
            self.copied.compiled = torch.compile(
                self.copied.network, dynamic=False, options={"freezing": True}
            )

        def back() -> None:
            self.copied.compiled = None

        self._try("The network is not compiled", step, back)

    def _run(self) -> Any:
        # It may work in place.
        return self.copied(*(a.clone() if isinstance(a, Tensor) else a for a in self.args))

    def _replace(
        self, failed: str, replaced: Callable[[], Iterator[tuple[Module, Module]]]
    ) -> bool:
        """Puts modules in the places of others."""
        network = self.copied.network
        undo: list[tuple[Module, Module]] = []

        def step() -> None:
            for old, new in replaced():
                put(network, old, new)
                undo.append((old, new))

        def back() -> None:
            for old, new in reversed(undo):
                put(network, new, old)

        return self._try(failed, step, back)

    def _try(self, failed: str, step: Callable[[], None], back: Callable[[], None]) -> bool:
        try:
            step()
            problem = self.copied.rounding.difference(floating(self._run()), self.expected)
        except Exception as error:  # of the network, or of a compiler
            problem = one_line(error)
        if problem is None:
            return True
        back()
        self.problems.append(f"{failed}: {problem}")
        return False


def _copied(network: Module) -> Module:
    try:
        twin = copy.deepcopy(network)
    except Exception as error:
        raise ValueError(
            f"The network cannot be copied, copy.deepcopy says: {one_line(error)}. Explain it as "
            "it is, or take out what cannot be copied: locks, open files, tensors of a graph."
        ) from error
    return twin.eval().requires_grad_(False)


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Leaves the state of random numbers as it is, and compares in full precision."""
    cudnn = torch.backends.cudnn
    full = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    )
    with torch.random.fork_rng([device] if device.type == "cuda" else []), full:
        yield


def _channels_last(value: Any) -> Any:
    if not isinstance(value, Tensor) or value.dim() not in _LAYOUTS:
        return value
    return value.contiguous(memory_format=_LAYOUTS[value.dim()])
