"""What a network does with its tensors, module by module, in execution order."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum

__all__ = ["Step", "Trace", "evaluating", "evaluation_mode"]


class Step:
    """A tensor with spatial extent, and the modules between which it passes."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = weakref.ref(tensor)  # activations are not kept
        self._version = tensor._version
        self.shape = tensor.shape
        self.givers: list[str] = []
        self.takers: list[str] = []
        #: Whether each position (... x 1) had NaN in its gradient, once one went back.
        self.reached: Tensor | None = None
        if tensor.requires_grad:
            tensor.register_hook(self._note)  # type: ignore[no-untyped-call]

    def _note(self, gradient: Tensor) -> None:
        self.reached = gradient.isnan().any(-1, keepdim=True)

    def holds(self, tensor: Tensor) -> bool:
        """Whether this is the tensor, not changed in place since."""
        return self._tensor() is tensor and self._version == tensor._version


class Trace:
    """What a network does with the tensors of some kind, in execution order.

    ``first_parameters``, ``last_parameters``, ``first_tokens`` and ``last_tokens`` count the steps
    that had been made when the first and last module with parameters, and the first and last token
    layer, gave their output; ``token_shapes`` are the shapes of the latter.
    """

    def __init__(self, n_samples: int, is_step: Callable[[torch.Size], bool]) -> None:
        self._n_samples = n_samples
        self._is_step = is_step
        self.steps: list[Step] = []
        self.calls: Counter[str] = Counter()
        self.first_parameters = 0
        self.last_parameters = -1
        self.first_tokens = 0
        self.last_tokens = -1
        self.token_shapes: list[torch.Size] = []

    @contextmanager
    def watching(self, model: Module) -> Iterator[None]:
        """Hooks into every module but the model itself."""
        handles = []
        try:
            for name, module in model.named_modules():
                if name and not isinstance(module, torch.jit.ScriptModule):
                    handles.append(module.register_forward_pre_hook(self._takes(name)))
                    handles.append(module.register_forward_hook(self._gives(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def layer(self, step: Step) -> tuple[str, bool] | None:
        """Name of the module that stands for a step, and whether its input is meant."""
        # The outermost block finishes last and begins first.
        for name in reversed(step.givers):
            if self.calls[name] == 1:
                return name, False
        for name in step.takers:
            if self.calls[name] == 1:
                return name, True
        return None

    def _takes(self, name: str) -> Any:
        def hook(_module: Module, args: tuple[Any, ...]) -> None:
            if len(args) == 1 and (step := self._step(args[0])) is not None:
                step.takers.append(name)

        return hook

    def _gives(self, name: str) -> Any:
        def hook(module: Module, _args: tuple[Any, ...], output: Any) -> None:
            self.calls[name] += 1
            if any(True for _ in module.parameters(recurse=False)):
                if self.last_parameters < 0:
                    self.first_parameters = len(self.steps)
                self.last_parameters = len(self.steps)
            if _computes_on_tokens(module, output):
                if not self.token_shapes:
                    self.first_tokens = len(self.steps)
                self.last_tokens = len(self.steps)
                self.token_shapes.append(output.shape)
            step = self._step(output)
            # A module that passes its input on (dropout, identity) did not make it; a block did.
            if step is not None and (
                not (step.givers or step.takers)
                or any(giver.startswith(f"{name}.") for giver in step.givers)
            ):
                step.givers.append(name)

        return hook

    def _step(self, tensor: Any) -> Step | None:
        """The step of a tensor, a new one if it is new; None if it is of another kind."""
        if (
            not isinstance(tensor, Tensor)
            or tensor.shape[:1] != (self._n_samples,)
            or not self._is_step(tensor.shape)
        ):
            return None
        for step in reversed(self.steps):
            if step.holds(tensor):
                return step
        self.steps.append(Step(tensor))
        return self.steps[-1]


def _computes_on_tokens(module: Module, output: Any) -> bool:
    """Whether a layer has just worked along the last dimension of N x positions x C."""
    if not isinstance(output, Tensor) or output.shape[1:-1].numel() <= 1:
        return False
    if isinstance(module, torch.nn.Linear):
        return output.dim() > 2
    # Channels-first subclasses of LayerNorm have their channels elsewhere.
    return isinstance(module, torch.nn.LayerNorm) and module.normalized_shape == output.shape[-1:]


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Runs as written, in evaluation mode, also inside inference mode; puts the flags back.

    Args:
        model (torch.nn.Module): The network.

    Examples::

        >>> model = torch.nn.Sequential(torch.nn.Dropout())
        >>> with torch.inference_mode(), evaluating(model):
        ...     model.training, torch.is_inference_mode_enabled()
        (False, False)
        >>> model[0].training
        True
    """
    with evaluation_mode(model), torch.inference_mode(False), _captum.uncompiled():
        yield


@contextmanager
def evaluation_mode(model: Module) -> Iterator[None]:
    """Puts every module of a network in evaluation mode, and afterwards back as it was.

    Args:
        model (torch.nn.Module): The network.

    Examples::

        >>> model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.BatchNorm2d(3).eval())
        >>> with evaluation_mode(model):
        ...     [module.training for module in model.modules()]
        [False, False, False]
        >>> [module.training for module in model.modules()]
        [True, True, False]
    """
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
