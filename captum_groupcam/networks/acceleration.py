"""A faster copy of a network for the passes that need no gradients."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum, _compiled
from captum_groupcam.naming import one_line
from captum_groupcam.networks._faster_copy import FasterCopy, faster_copy
from captum_groupcam.networks._sameness import LOW, Rounding, floating
from captum_groupcam.networks._state import State
from captum_groupcam.networks.training import in_training
from captum_groupcam.threads import current_call

__all__ = ["Accelerated", "accelerate"]


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
    convolution that runs before it (:func:`torch.nn.utils.fusion.fuse_conv_bn_eval`), convolutions
    do the zero padding before them, activations after a convolution work in place, images are
    channels last, and it is compiled if that is asked for. Each of these steps is taken only if the
    outputs for the inputs stay the same to rounding: a value must not change by more than a share
    of itself and of what its column moves by when the inputs change by that share, the square root
    of the dtype's precision (3e-4 for float32). With 16 bits, whose rounding adds up over many
    layers, the share is 64 times the precision (0.06 for float16), and folding has to pass in
    float32 first. A step that fails is left out, with a warning that says why.

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
        TypeError: If the network is not a module, or gives no tensors.
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
    copied, problems = faster_copy(eager, (*whole, *extra), compiled_batch_size)
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return Accelerated(eager, copied)


class Accelerated(Module):
    """A network with a faster copy of it, see :func:`accelerate`.

    Parameters, state and modules are those of the network. With gradients, and as long as a hook
    is on one of its modules that was not there before, or one of them changes to training mode, the
    network itself runs; for good, with a warning, once its weights have changed or its answer is
    another. A copy of it is one of the network.

    Args:
        network (torch.nn.Module): The network as it is.
        copied (FasterCopy): What answers without gradients.

    Attributes:
        folded (int): Number of batch normalisations that are folded.
        compiled (bool): Whether the copy is compiled.

    Examples::

        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)).eval()
        >>> fast = accelerate(network, torch.rand(1, 3, 2, 2))
        >>> fast(torch.rand(2, 3, 2, 2)).requires_grad, fast.folded, fast.compiled
        (True, 1, False)
    """

    def __init__(self, network: Module, copied: FasterCopy) -> None:
        super().__init__()
        # The name by which torch.compile, and so the package, knows what is behind.
        self._orig_mod = network
        self.training = network.training  # of this module alone
        self.folded = copied.folded
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
        found = floating(answer)
        try:
            expected = floating(row.of(network))
        except Exception:  # it may not take one row alone
            expected = []
        if expected and rounding.difference([one[:1] for one in found], expected) is None:
            return None, answer
        output = whole.cloned().of(network)
        return whole.difference(found, floating(output), network, rounding), output

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
        return self._mapped(lambda t: t.float() if t.dtype in LOW else t)

    def answered_alike(
        self, copied: Callable[..., Any], network: Module, rounding: Rounding
    ) -> str | None:
        """What a copy answers otherwise than its network."""
        try:
            expected = floating(self.cloned().of(network))
            return self.difference(floating(self.cloned().of(copied)), expected, network, rounding)
        except Exception as error:
            return one_line(error)

    def difference(
        self, found: list[Tensor], expected: list[Tensor], network: Module, rounding: Rounding
    ) -> str | None:
        """What differs by more than rounding, also by what outputs move by here."""
        if rounding.difference(found, expected) is None:
            return None

        def run(args: Sequence[Any]) -> list[Tensor]:
            return floating(network(*args, **self.kwargs))

        return Rounding.measured(run, self.args, expected).difference(found, expected)
