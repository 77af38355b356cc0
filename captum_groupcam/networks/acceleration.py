"""A faster copy of a network for the passes that need no gradients."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module

from captum_groupcam import _captum, _compiled
from captum_groupcam.naming import one_line
from captum_groupcam.networks._folding import foldable_pairs, fused, put
from captum_groupcam.networks._in_place import overwriting_activations
from captum_groupcam.networks._sameness import Rounding
from captum_groupcam.networks._state import State
from captum_groupcam.networks.outputs import tensors_of
from captum_groupcam.networks.training import in_training
from captum_groupcam.threads import current_call

__all__ = ["Accelerated", "accelerate"]

_LOW = {torch.float16, torch.bfloat16}
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
    convolution that runs before it (:func:`torch.nn.utils.fusion.fuse_conv_bn_eval`), activations
    after a convolution work in place, images are channels last, and it is compiled if that is
    asked for. Each of these steps is taken only if the outputs for the inputs stay the same to
    rounding: a value must not change by more than a share of itself and of what its column moves by
    when the inputs change by that share, the square root of the dtype's precision (3e-4 for
    float32). With 16 bits, whose rounding adds up over many layers, the share is 64 times the
    precision (0.06 for float16), and folding has to pass in float32 first. A step that fails is
    left out, with a warning that says why.

    At the first pass of each call of this package (of ``attribute``, say), all weights are read,
    and one of the rows that are asked runs in the network, too: where something has changed, even
    past torch's count of changes, or the copy answers otherwise, the network itself runs from then
    on, with a warning. Outside of such calls each pass is compared.

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
        trial.overwrite()
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
    network itself runs; for good, with a warning, once its weights have changed or its answer is
    another. A copy of it is one of the network.

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
        self._state = State(network)
        self._outdated = False
        #: The call of the library in which the copy was compared last.
        self._compared_in: object = None

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
            UserWarning: Once, if the network has changed since it was accelerated, or the copy's
                answer is another.
        """
        network = self._orig_mod
        if torch.is_grad_enabled() or self._outdated or self._state.runs_otherwise():
            return network(*args, **kwargs)
        call = current_call()
        compared = call is not None and call is self._compared_in
        if self._state.is_changed() or not (compared or self._state.has_same_values()):
            self._give_up(
                "The network's weights or settings have changed, or were moved, since it was "
                "accelerated: it runs as it is. Call accelerate again."
            )
            return network(*args, **kwargs)
        if compared:
            return self._copied(*args, **kwargs)
        asked = _Asked(args, kwargs)
        if call is None and asked.rows == 1:
            return network(*args, **kwargs)  # no more than a comparison would cost
        problem, answer = self._compared(asked)
        if problem is not None:
            self._give_up(
                f"The faster copy of the network answers otherwise: {problem} The network runs as "
                "it is from now on. If it has changed, call accelerate again."
            )
        self._compared_in = call
        return answer

    def _compared(self, asked: _Asked) -> tuple[str | None, Any]:
        """What the copy answers otherwise than the network, and the answer."""
        network, copied, rounding = self._orig_mod, self._copied, self._copied.rounding
        whole, row = asked.cloned(), asked.cloned(first=True)  # either may work in place
        if asked.device is not None and torch.is_autocast_enabled(asked.device.type):
            # Autocast rounds more away than a fold may change.
            with torch.autocast(asked.device.type, enabled=False):
                problem = row.in_float32().answered_alike(copied, network, rounding)
            return problem, asked.of(network if problem else copied)
        answer = asked.of(copied)
        found = _tensors(answer)
        try:
            expected = _tensors(row.of(network))
        except Exception:  # it may not take one row alone
            expected = []
        if expected and rounding.difference([one[:1] for one in found], expected) is None:
            return None, answer
        output = whole.cloned().of(network)
        return whole.difference(found, _tensors(output), network, rounding), output

    def _give_up(self, message: str) -> None:
        self._outdated = True
        _captum.warn(message)


@dataclass(frozen=True)
class _Asked:
    """What a network is asked."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def _tensors(self) -> list[Tensor]:
        return [one for one in self.args if isinstance(one, Tensor) and one.dim()]

    @property
    def device(self) -> torch.device | None:
        """Where it is asked."""
        return next((one.device for one in self._tensors), None)

    @property
    def rows(self) -> int:
        """The size of the batch."""
        return next(map(len, self._tensors), 0)

    def of(self, network: Callable[..., Any]) -> Any:
        """The answer."""
        return network(*self.args, **self.kwargs)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> _Asked:
        def of(value: Any) -> Any:
            return change(value) if isinstance(value, Tensor) else value

        return _Asked(tuple(map(of, self.args)), {k: of(v) for k, v in self.kwargs.items()})

    def cloned(self, *, first: bool = False) -> _Asked:
        """The same with tensors of its own; of those with a row for each sample the first one."""
        rows = self.rows if first else None
        return self._mapped(lambda t: (t[:1] if t.dim() and len(t) == rows else t).clone())

    def in_float32(self) -> _Asked:
        """The same without 16 bits."""
        return self._mapped(lambda t: t.float() if t.dtype in _LOW else t)

    def answered_alike(
        self, copied: Callable[..., Any], network: Module, rounding: Rounding
    ) -> str | None:
        """What a copy answers otherwise than its network."""
        try:
            expected = _tensors(self.cloned().of(network))
            return self.difference(_tensors(self.cloned().of(copied)), expected, network, rounding)
        except Exception as error:
            return one_line(error)

    def difference(
        self, found: list[Tensor], expected: list[Tensor], network: Module, rounding: Rounding
    ) -> str | None:
        """What differs by more than rounding, also by what outputs move by here."""
        if rounding.difference(found, expected) is None:
            return None

        def run(args: Sequence[Any]) -> list[Tensor]:
            return _tensors(network(*args, **self.kwargs))

        return Rounding.measured(run, self.args, expected).difference(found, expected)


@dataclass
class _Copy:
    """The copy, and how it is asked. No module, so that it is no part of one."""

    network: Module
    channels_last: bool = False
    compiled: Callable[..., Any] | None = None
    batch_size: int = 0
    rounding: Rounding = field(default_factory=Rounding)

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
        copied.rounding = Rounding.measured(
            lambda args: _tensors(copied(*args)), self.args, self.expected
        )

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

        failed = "Batch normalisation is not folded"
        if not self.pairs:
            return 0
        if any(t.dtype in _LOW for t in network.parameters()):
            problem = self._folded_in_float32()
            if problem is not None:
                self.problems.append(f"{failed}: {problem}")
                return 0
        return len(self.pairs) if self._try(failed, step, back) else 0

    def _folded_in_float32(self) -> str | None:
        """What differs in float32, where 16 bits would round more away than a fold may change."""
        twins: dict[int, Any] = {}
        whole = copy.deepcopy(self.copied.network, twins).float()

        def run(args: Sequence[Any]) -> list[Tensor]:
            return _tensors(whole(*args))

        args = [a.float() if isinstance(a, Tensor) and a.dtype in _LOW else a for a in self.args]
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

    def _try(self, failed: str, step: Callable[[], None], back: Callable[[], None]) -> bool:
        try:
            step()
            problem = self.copied.rounding.difference(_tensors(self._run()), self.expected)
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
