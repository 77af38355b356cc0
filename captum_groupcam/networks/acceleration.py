"""A faster copy of a network for the passes that need no gradients."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module

from captum_groupcam import _compiled
from captum_groupcam.naming import one_line
from captum_groupcam.networks._folding import foldable_pairs, fused, put
from captum_groupcam.networks.outputs import tensors_of
from captum_groupcam.networks.training import in_training

__all__ = ["Accelerated", "accelerate"]

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def accelerate(
    network: Module,
    inputs: Tensor | tuple[Tensor, ...],
    additional_forward_args: Any = None,
    *,
    compiled_batch_size: int | None = None,
) -> Accelerated:
    """Gives a network whose passes without gradients are answered by a faster copy of it.

    Pass it instead of the network: to the methods of this package, with the layer of the
    network, and to deletion and insertion. Masked queries run in the copy. What needs gradients or
    looks inside runs in the network as it is, with its own weights.

    In the copy, which is frozen and in evaluation mode, batch normalisation is folded into the
    convolution that runs before it (:func:`torch.nn.utils.fusion.fuse_conv_bn_eval`), images are
    channels last, and it is compiled if that is asked for. Each of these steps is taken only if
    the outputs for the inputs stay the same to rounding: the largest difference must not exceed the
    square root of the dtype's precision (3e-4 for float32, 0.03 for float16) times the largest
    output. A step that fails is left out, with a warning that says why.

    Args:
        network (torch.nn.Module): The network, compiled or not. It is not changed, and not run.
        inputs (Tensor or tuple of Tensor): Inputs like those that it will be asked about,
            N x C x spatial each; one sample is enough. A network whose way depends on values
            is checked on the way that these take.
        additional_forward_args (Any, optional): Arguments of the network after the inputs, a tuple
            if several. Default: None.
        compiled_batch_size (int, optional): Compile for passes of this many inputs, as many as
            ``internal_batch_size`` says; larger ones are split, smaller ones run as compiled with
            padding, or uncompiled if that is faster. Only networks of one tensor run compiled. It
            takes a minute and a C++ compiler (a GPU: Triton). Default: None, not compiled.

    Returns:
        Accelerated: The network, with a faster copy beside it.

    Raises:
        TypeError: If the network is no module, or gives no tensors.
        ValueError: If it is in training mode, cannot be copied, fails with these inputs, or gives
            NaN or infinite values.

    Warns:
        UserWarning: If a step fails.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> from captum_groupcam import GroupCAM
        >>> from captum_groupcam.networks import accelerate
        >>> network = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3),
        ...     nn.BatchNorm2d(8),
        ...     nn.ReLU(),
        ...     nn.AdaptiveAvgPool2d(1),
        ...     nn.Flatten(),
        ...     nn.Linear(8, 5),
        ... ).eval()
        >>> images = torch.rand(2, 3, 16, 16)
        >>> fast = accelerate(network, images)
        >>> fast.folded
        1
        >>> maps = GroupCAM(fast, network[2]).attribute(images, target=3, n_groups=4)
        >>> maps.shape
        torch.Size([2, 1, 16, 16])
    """
    eager = _compiled.eager(network)
    if not isinstance(eager, Module):
        raise TypeError(f"Expected a torch.nn.Module, got {type(eager).__name__}.")
    if in_training(eager):
        raise ValueError(
            "The network is in training mode, and its copy would answer as in evaluation mode: "
            "call eval() on it first."
        )
    if compiled_batch_size is not None and compiled_batch_size < 1:
        raise ValueError(f"compiled_batch_size must be at least 1, got {compiled_batch_size}.")
    whole = inputs if isinstance(inputs, tuple) else (inputs,)
    extra = additional_forward_args
    extra = () if extra is None else extra if isinstance(extra, tuple) else (extra,)
    with torch.inference_mode(False), torch.no_grad(), _undisturbed(whole[0].device):
        trial = _Trial(_Copy(_copied(eager)), (*whole, *extra))
        folded = trial.fold()
        trial.channels_last()
        if compiled_batch_size is not None:
            trial.compile(compiled_batch_size)
    for problem in trial.problems:
        warnings.warn(problem, stacklevel=2)
    return Accelerated(eager, trial.copied, folded)


class Accelerated(Module):
    """A network with a faster copy of it, see :func:`accelerate`.

    Parameters, state and modules are those of the network. With gradients, and as long as a hook
    is on one of its modules that was not there before, or one of them changes to training mode, the
    network itself runs; for good, with a warning, once its weights have changed. A copy of it is
    one of the network.

    Args:
        network (torch.nn.Module): The network as it is.
        copied (Callable): What answers without gradients.
        folded (int): See below.

    Attributes:
        folded (int): Number of batch normalisations that are folded.
        compiled (bool): Whether the copy is compiled.

    Examples::

        >>> network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
        >>> fast = accelerate(network, torch.rand(1, 3, 2, 2))
        >>> fast(torch.rand(2, 3, 2, 2)).requires_grad, fast.folded, fast.compiled
        (True, 1, False)
    """

    def __init__(self, network: Module, copied: _Copy, folded: int) -> None:
        super().__init__()
        # The name by which torch.compile, and so the package, knows what is behind.
        self._orig_mod = network
        self.training = network.training  # of this module alone
        self.folded = folded
        self.compiled = copied.compiled is not None
        self._copied = copied
        self._watched = _Watched(network)
        self._outdated = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        """A copy of the network as it is: the faster one has its weights."""
        return copy.deepcopy(self._orig_mod, memo)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network gives.

        Args:
            *args (Any): As for the network.
            **kwargs (Any): As for the network.

        Returns:
            Any: As the network.

        Warns:
            UserWarning: Once, if the network's weights have changed since it was accelerated.
        """
        network = self._orig_mod
        if torch.is_grad_enabled() or self._watched.runs_otherwise():
            return network(*args, **kwargs)
        if self._watched.is_changed():
            if not self._outdated:
                warnings.warn(
                    "The network's weights have changed, or were moved, since it was accelerated: "
                    "it runs as it is. Call accelerate again.",
                    stacklevel=2,
                )
            self._outdated = True
            return network(*args, **kwargs)
        return self._copied(*args, **kwargs)


@dataclass
class _Copy:
    """The copy, and how it is asked. No module, so that it is no part of one."""

    network: Module
    channels_last: bool = False
    compiled: Callable[..., Any] | None = None
    batch_size: int = 0

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


class _Trial:
    """Takes steps that make a copy faster, each back if the outputs change."""

    def __init__(self, copied: _Copy, args: tuple[Any, ...]) -> None:
        self.copied, self.args = copied, args
        self.problems: list[str] = []
        with foldable_pairs(copied.network) as self.pairs:
            try:
                output = self._run()
            except Exception as error:
                raise ValueError(
                    f"The network fails with the given inputs: {one_line(error)}"
                ) from error
        self.expected = _tensors(output)
        if not self.expected:
            raise TypeError(
                f"The network returned {type(output).__name__}, expected a tensor or several. Wrap "
                "it so that it does: captum_groupcam.networks.SelectOutput."
            )
        if not all(tensor.isfinite().all() for tensor in self.expected):
            raise ValueError("The network gives NaN or infinite values for the given inputs.")

    def fold(self) -> int:
        """Folds batch normalisations, and says how many."""
        network = self.copied.network
        undo: list[tuple[Module, Module]] = []

        def step() -> None:
            for convolution, norm in self.pairs:
                for old, new in (
                    (convolution, fused(convolution, norm)),
                    (norm, nn.Identity()),
                ):
                    put(network, old, new)
                    undo.append((old, new))

        def back() -> None:
            for old, new in reversed(undo):
                put(network, new, old)

        done = bool(self.pairs) and self._try("Batch normalisation is not folded", step, back)
        return len(self.pairs) if done else 0

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

    def _try(self, failed: str, step: Callable[[], None], back: Callable[[], None]) -> bool:
        try:
            step()
            problem = _difference(_tensors(self._run()), self.expected)
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


def _tensors(output: Any) -> list[Tensor]:
    found = [output] if isinstance(output, Tensor) else list(tensors_of(output).values())
    return [tensor for tensor in found if tensor.is_floating_point()]


def _difference(found: list[Tensor], expected: list[Tensor]) -> str | None:
    """What differs by more than rounding."""
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (found, expected)]
    if shapes[0] != shapes[1]:
        return f"the outputs have the shapes {shapes[0]}, not {shapes[1]}."
    for one, other in zip(found, expected, strict=True):
        if not one.numel():
            continue
        difference, largest = float((one - other).abs().max()), float(other.abs().max())
        if not difference <= torch.finfo(other.dtype).eps ** 0.5 * largest:  # NaN, too
            return f"the outputs differ by {difference:.3g}, where the largest is {largest:.3g}."
    return None


class _Watched:
    """A network in which any change of weights, parts, hooks or modes is noticed, fast."""

    def __init__(self, network: Module) -> None:
        self._modules = list(network.modules())
        self._tensors = [*network.parameters(), *network.buffers()]
        self._weights, self._modes = self._of_weights(), self._of_modes()

    def runs_otherwise(self) -> bool:
        """Whether a hook came or went, or a module changed its mode."""
        return self._of_modes() != self._modes

    def is_changed(self) -> bool:
        """Whether a weight or a part is another one."""
        return self._of_weights() != self._weights

    def _of_modes(self) -> list[tuple[bool, int, int]]:
        return [
            (m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in self._modules
        ]

    def _of_weights(self) -> list[tuple[int, ...]]:
        held = [
            tuple(map(id, (*m._parameters.values(), *m._buffers.values(), *m._modules.values())))
            for m in self._modules
        ]
        values = [
            (tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version)
            for tensor in self._tensors
        ]
        return [*held, *values]
