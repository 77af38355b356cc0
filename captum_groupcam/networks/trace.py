"""What a network does with its tensors, module by module, in execution order."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import Module

from captum_groupcam import _compiled
from captum_groupcam.threads import of_this_thread

__all__ = ["Place", "Step", "Trace", "evaluating", "evaluation_mode", "one_tensor"]


class Place(NamedTuple):
    """Where in a network a tensor is seen.

    Attributes:
        name (str): Dotted name of a module.
        at_input (bool): Whether its input is meant rather than its output.
        call (int or None): In which of its calls, from 0. Default: None, it runs once, or the last
            counts.
    """

    name: str
    at_input: bool
    call: int | None = None

    def __str__(self) -> str:
        place = f"input of {self.name}" if self.at_input else self.name
        return place if self.call is None else f"{place} (call {self.call})"


class Step:
    """A tensor, and the modules between which it passes.

    Args:
        tensor (Tensor): Of any shape.
        trace (Trace): The trace that it is a step of.

    Attributes:
        shape (torch.Size): Its shape.
        givers (list of str): Modules that give it, the innermost first.
        takers (list of str): Modules that take it as their only argument, the outermost first.
        call (int): Which call of its last giver it is of, counted from 0.
        taken_by_call (int): Which call of its first taker takes it, counted from 0.
        edge (GradientEdge or None): Where it is in the graph, if there is one.
        reached (Tensor or None): Whether each of its values had NaN in its gradient, once one went
            back while the trace was noting.
        marked (bool): Whether a gradient with NaN has come by since this was last false.
        stop (Callable or None): What the gradient is replaced by on its way back.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
        >>> trace = Trace(lambda tensor: tensor.dim() == 4)
        >>> with trace.watching(net):
        ...     _ = net(torch.rand(1, 3, 8, 8))
        >>> [(step.givers, step.takers, tuple(step.shape)) for step in trace.steps[1:]]
        [(['0'], ['1'], (1, 8, 6, 6)), (['1'], [], (1, 8, 6, 6))]
    """

    def __init__(self, tensor: Tensor, trace: Trace) -> None:
        self._tensor = weakref.ref(tensor)  # activations are not kept
        self._trace = weakref.ref(trace)
        self._version = tensor._version
        self.shape = tensor.shape
        self.givers: list[str] = []
        self.takers: list[str] = []
        self.call = 0
        self.taken_by_call = 0
        self.edge: GradientEdge | None = None
        self.reached: Tensor | None = None
        self.marked = False
        self.stop: Callable[[Tensor], Tensor] | None = None
        self._handle: Any = None
        if tensor.requires_grad:
            self.edge = get_gradient_edge(tensor)
            self._handle = tensor.register_hook(self._on_gradient)  # type: ignore[no-untyped-call]

    def forget(self) -> None:
        """Lets go of the graph, which holds the step that holds it: no collector sees that."""
        self.edge = self.stop = None
        if self._handle is not None:
            self._handle.remove()

    def _on_gradient(self, gradient: Tensor | None) -> Tensor | None:
        trace = self._trace()
        if gradient is None:
            return None
        nan = gradient.isnan()
        self.marked |= bool(nan.any())
        if trace is not None and trace.noting:
            self.reached = nan
        return None if self.stop is None else self.stop(gradient)

    def holds(self, tensor: Tensor) -> bool:
        """Whether this is the tensor, not changed in place since.

        Args:
            tensor (Tensor): Of any shape.

        Returns:
            bool: Whether it is the same object, of the same version.
        """
        return self.was(tensor, tensor._version)

    def was(self, tensor: Tensor, version: int) -> bool:
        """Whether this was the tensor when it had been changed in place so often.

        Args:
            tensor (Tensor): Of any shape.
            version (int): How often.

        Returns:
            bool: Whether it is the same object, of this version.
        """
        return self._tensor() is tensor and self._version == version


class Trace:
    """The tensors of some kind that modules give and take, in execution order.

    Args:
        is_step (Callable): Whether a tensor is of the kind.

    Attributes:
        steps (list of Step): The tensors.
        calls (Counter): How often each module has run.
        first_parameters (int or None): How many steps there were when the first module with
            parameters gave its output.
        noting (bool): Whether steps note where gradients that come back are NaN.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
        >>> trace = Trace(lambda tensor: tensor.dim() == 4)
        >>> with trace.watching(net):
        ...     _ = net(torch.rand(1, 3, 8, 8))
        >>> print(trace.place(trace.steps[-1]), trace.calls["1"])
        1 1
    """

    def __init__(self, is_step: Callable[[Tensor], bool]) -> None:
        self._is_step = is_step
        self.steps: list[Step] = []
        self.calls: Counter[str] = Counter()
        self.first_parameters: int | None = None
        self.noting = False

    @contextmanager
    def watching(self, model: Module) -> Iterator[None]:
        """Hooks into every module but the model itself.

        Args:
            model (torch.nn.Module): The network.
        """
        handles = []
        try:
            for name, module in model.named_modules():
                if name and not isinstance(module, torch.jit.ScriptModule):
                    takes, gives = map(of_this_thread, (self._takes(name), self._gives(name)))
                    handles.append(module.register_forward_pre_hook(takes))
                    handles.append(module.register_forward_hook(gives))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def forget(self) -> None:
        """Lets go of the graph that the steps are part of."""
        for step in self.steps:
            step.forget()

    def place(self, step: Step) -> Place | None:
        """Where a step is to be seen.

        Args:
            step (Step): A step of the trace.

        Returns:
            Place or None: At a module that runs once; None if there is none.
        """
        # The outermost block finishes last and begins first.
        for name in reversed(step.givers):
            if self.calls[name] == 1:
                return Place(name, at_input=False)
        for name in step.takers:
            if self.calls[name] == 1:
                return Place(name, at_input=True)
        return None

    def place_of_call(self, step: Step) -> Place | None:
        """Where a step is to be seen whose modules run several times.

        Args:
            step (Step): A step of the trace.

        Returns:
            Place or None: A call of the outermost module that gives it, or that takes it.
        """
        if step.givers:
            return Place(step.givers[-1], at_input=False, call=step.call)
        if step.takers:
            return Place(step.takers[0], at_input=True, call=step.taken_by_call)
        return None

    def _takes(self, name: str) -> Any:
        def hook(_module: Module, args: tuple[Any, ...]) -> None:
            if (step := self._step(one_tensor(args))) is not None:
                if not step.takers:
                    step.taken_by_call = self.calls[name]
                step.takers.append(name)

        return hook

    def _gives(self, name: str) -> Any:
        def hook(module: Module, _args: tuple[Any, ...], output: Any) -> None:
            self.calls[name] += 1
            if self.first_parameters is None and _has_weights(module):
                self.first_parameters = len(self.steps)
            step = self._step(one_tensor(output))
            # A module that passes its input on (dropout, identity) did not make it; a block did.
            if step is not None and (
                not (step.givers or step.takers)
                or any(giver.startswith(f"{name}.") for giver in step.givers)
            ):
                step.givers.append(name)
                step.call = self.calls[name] - 1

        return hook

    def _step(self, tensor: Tensor | None) -> Step | None:
        """The step of a tensor, a new one if it is new; None if it is of another kind."""
        if tensor is None or not self._is_step(tensor):
            return None
        for step in reversed(self.steps):
            if step.holds(tensor):
                return step
        self.steps.append(Step(tensor, self))
        return self.steps[-1]


def _has_weights(module: Module) -> bool:
    """Whether a module has parameters of its own; those of quantised ones are packed."""
    packed = type(module).__module__.startswith("torch.ao.nn") and hasattr(module, "weight")
    return packed or any(True for _ in module.parameters(recurse=False))


def one_tensor(values: Any) -> Tensor | None:
    """The tensor that a module gives or takes.

    Args:
        values (Any): Its output, or its arguments.

    Returns:
        Tensor or None: Of any shape; None if that is not exactly one, as Captum asks.

    Examples::

        >>> one_tensor((torch.zeros(2),))
        tensor([0., 0.])
    """
    if isinstance(values, (tuple, list)) and len(values) == 1:
        (values,) = values
    return values if isinstance(values, Tensor) else None


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Runs as written, in evaluation mode, also inside inference mode; leaves no trace.

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
    with evaluation_mode(model), torch.inference_mode(False), _compiled.uncompiled():
        yield


class evaluation_mode:  # noqa: N801 (a context manager)
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

    # A class: a generator that was interrupted would put things back when it is collected.

    def __init__(self, model: Module) -> None:
        self._training = [module for module in model.modules() if module.training]

    def __enter__(self) -> None:
        for module in self._training:
            module.training = False

    def __exit__(self, *_: object) -> None:
        for module in self._training:
            module.training = True
