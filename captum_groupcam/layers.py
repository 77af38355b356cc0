"""Which layer to explain."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

__all__ = ["TargetLayer", "find_layer"]


class TargetLayer(NamedTuple):
    """A layer of a network that a map can be made of.

    Attributes:
        name (str): Its dotted name in the network.
        module (torch.nn.Module): The layer.
        attribute_to_layer_input (bool): Whether its input is meant rather than its output.
    """

    name: str
    module: Module
    attribute_to_layer_input: bool


def find_layer(model: Module, inputs: Tensor | tuple[Tensor, ...]) -> TargetLayer:
    """Finds the last layer that still knows where in the input something is.

    It is the last module in execution order whose output has the dimensions of the input and more
    than one position. If a block and its last child give the same output, it is the block. If the
    module that makes the output is called several times (a shared ReLU), it is the input of the
    module that takes it, usually the pooling. Class maps that are pooled straight into the output
    are passed over if there is anything else: each class looks at one channel of them, so there is
    nothing to group.

    The network runs once, in evaluation mode and without a graph; nothing of it is changed.

    Args:
        model (torch.nn.Module): A convolutional network for 1-D to 3-D inputs.
        inputs (Tensor or tuple of Tensor): What the network takes; one sample is enough. The first
            floating-point input of shape N x C x spatial counts.

    Returns:
        TargetLayer: The layer's name, the layer, and whether its input is meant.

    Raises:
        ValueError: If no input or no layer has spatial dimensions, or if the network computes on
            tokens or channels-last maps (a transformer) where they would be.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(
        ...     nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()),
        ...     nn.AdaptiveAvgPool2d(1),
        ...     nn.Flatten(),
        ...     nn.Linear(8, 5),
        ... )
        >>> find_layer(net, torch.rand(1, 3, 16, 16)).name
        '0'
    """
    whole = inputs if isinstance(inputs, tuple) else (inputs,)
    reference = next((t for t in whole if t.is_floating_point() and 3 <= t.dim() <= 5), None)
    if reference is None:
        raise ValueError(
            "Expected an input of shape N x C x spatial, floating point, with one to three spatial "
            f"dimensions; got {[(tuple(t.shape), t.dtype) for t in whole]}."
        )
    # Compiled code does not call hooks.
    model = getattr(model, "_orig_mod", model)
    trace = _Trace(reference.shape[0], reference.dim())
    with _evaluating(model), trace.watching(model):
        # Clones: in-place layers must not reach the caller's tensors, and tensors of
        # inference_mode have no version.
        output = model(*(t.detach().clone() for t in whole))

    n_outputs = output.shape[1] if isinstance(output, Tensor) and output.dim() > 1 else None

    def is_class_map(index: int) -> bool:
        return trace.steps[index].shape[1] == n_outputs and trace.last_parameters <= index

    # What comes before any parameter, an image that is normalised or cropped, is no feature.
    latest_first = range(len(trace.steps) - 1, trace.first_parameters - 1, -1)
    for index in sorted(latest_first, key=is_class_map):
        step = trace.steps[index]
        layer = trace.layer(step)
        if layer is None:
            continue
        if trace.last_tokens > index or trace.token_shape == step.shape:
            raise ValueError(
                f"The last layer with spatial dimensions, {layer[0]!r}, is followed by layers that "
                "compute on tokens or channels-last maps, as in a transformer, so it is not the "
                "layer to explain. Choose a layer, and give a reshape_transform that turns its "
                "output into N x C x spatial."
            )
        return TargetLayer(layer[0], model.get_submodule(layer[0]), layer[1])
    raise ValueError(
        f"No layer of {type(model).__name__} has an output with {reference.dim() - 2} spatial "
        f"dimensions and more than one position for an input of shape {tuple(reference.shape)}. "
        "Class activation maps need a layer that keeps positions, as convolutional ones do."
    )


class _Step:
    """A tensor with spatial extent, and the modules between which it passes."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = weakref.ref(tensor)  # activations are not kept
        self._version = tensor._version
        self.shape = tensor.shape
        self.givers: list[str] = []
        self.takers: list[str] = []

    def holds(self, tensor: Tensor) -> bool:
        """Whether this is the tensor, not changed in place since."""
        return self._tensor() is tensor and self._version == tensor._version


class _Trace:
    """What a network does with spatial tensors, in execution order.

    ``first_parameters``, ``last_parameters`` and ``last_tokens`` count the steps that had been made
    when the first and last module with parameters, and the last token layer, gave their output.
    """

    def __init__(self, n_samples: int, dims: int) -> None:
        self._n_samples = n_samples
        self._dims = dims
        self.steps: list[_Step] = []
        self.calls: Counter[str] = Counter()
        self.first_parameters = 0
        self.last_parameters = -1
        self.last_tokens = -1
        self.token_shape: torch.Size | None = None

    @contextmanager
    def watching(self, model: Module) -> Iterator[None]:
        """Hooks into every module but the model itself."""
        handles = []
        try:
            for name, module in model.named_modules():
                if name:
                    handles.append(module.register_forward_pre_hook(self._takes(name)))
                    handles.append(module.register_forward_hook(self._gives(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def layer(self, step: _Step) -> tuple[str, bool] | None:
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
                self.last_tokens, self.token_shape = len(self.steps), output.shape
            step = self._step(output)
            # A module that passes its input on (dropout, identity) did not make it; a block did.
            if step is not None and (
                not (step.givers or step.takers)
                or any(giver.startswith(f"{name}.") for giver in step.givers)
            ):
                step.givers.append(name)

        return hook

    def _step(self, tensor: Any) -> _Step | None:
        """The step of a spatial tensor, a new one if it is new; None for anything else."""
        if (
            not isinstance(tensor, Tensor)
            or tensor.dim() != self._dims
            or tensor.shape[0] != self._n_samples
            or tensor.shape[2:].numel() <= 1
        ):
            return None
        for step in reversed(self.steps):
            if step.holds(tensor):
                return step
        self.steps.append(_Step(tensor))
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
def _evaluating(model: Module) -> Iterator[None]:
    """Runs in evaluation mode and without a graph, and puts the training flags back."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
