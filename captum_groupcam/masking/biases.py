"""What inputs and biases contribute to an output: full gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.nn import Module

from captum_groupcam import _captum, _compiled
from captum_groupcam.masking.network import Network, finite
from captum_groupcam.networks._linear_calls import WatchedFunctions

__all__ = ["FullGradients", "full_gradients", "in_full_precision"]

_CONVOLUTIONS: tuple[Callable[..., Any], ...] = (
    *(F.conv1d, F.conv2d, F.conv3d),
    *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
)
#: By what adds a bias to the channels of N x C x spatial, its arguments.
_ADDING: dict[Callable[..., Any], tuple[str, ...]] = {
    **dict.fromkeys(_CONVOLUTIONS, ("input", "weight", "bias")),
    F.batch_norm: (
        *("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    ),
    F.instance_norm: ("input", "running_mean", "running_var", "weight", "bias"),
    F.group_norm: ("input", "num_groups", "weight", "bias"),
}
#: The same of N x ... x C, of which nobody knows where its positions lie.
_ADDING_LAST: dict[Callable[..., Any], tuple[str, ...]] = {
    F.linear: ("input", "weight", "bias"),
    F.layer_norm: ("input", "normalized_shape", "weight", "bias"),
}
_LOW = {torch.float16, torch.bfloat16}


class FullGradients(NamedTuple):
    """The terms that add up to an output, but for biases of layers without positions.

    Attributes:
        at_inputs (list of Tensor): Q x C x spatial, gradient times input.
        at_biases (list of Tensor): Q x K x spatial, gradient times bias, for each bias.
        seen (list of set of int): For each bias, which of the inputs that are explained reach it.
    """

    at_inputs: list[Tensor]
    at_biases: list[Tensor]
    seen: list[set[int]]


def in_full_precision(network: Network) -> Network:
    """A network of lower precision with the same weights in float32; another as it is.

    Gradients of half precision lose what is small, and biases times gradients most of all.

    Args:
        network (Network): Its forward function is a module.

    Returns:
        Network: It has a copy of the module, if that has weights of 16 bits.

    Raises:
        ValueError: If it cannot be copied.

    Examples::

        >>> from captum_groupcam.masking.targets import Target
        >>> target = Target.of(0, 1, torch.device("cpu"))
        >>> network = Network(torch.nn.Linear(2, 1).half(), target, (), n_samples=1)
        >>> in_full_precision(network).forward_func.weight.dtype
        torch.float32
    """
    module = _compiled.on_one_device(network.forward_func)
    if not isinstance(module, Module):
        return network
    if _LOW.isdisjoint(t.dtype for t in (*module.parameters(), *module.buffers())):
        return network
    try:
        module = copy.deepcopy(module).float()
    except Exception as error:
        raise ValueError(
            "FullGrad computes in float32, since gradients of half precision lose what is small. "
            f"The network cannot be copied for that: {type(error).__name__}: {error}"
        ) from error
    extra = tuple(map(_in_float32, network.additional_forward_args))
    return replace(network, forward_func=module, additional_forward_args=extra)


def _in_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in _LOW else value


def full_gradients(
    network: Network, inputs: tuple[Tensor, ...], samples: Tensor, explained: Sequence[int]
) -> FullGradients:
    """Gradients at inputs and at the outputs of layers with a bias, times inputs and biases.

    Args:
        network (Network): Its forward function is a module, of float32 or wider.
        inputs (tuple of Tensor): Inputs, Q x C x spatial each.
        samples (Tensor): Q indices of the samples that they come from.
        explained (sequence of int): Places of the inputs that are explained.

    Returns:
        FullGradients: The terms, in the order of inputs and layers.

    Raises:
        TypeError: If the forward function is not a module.
        ValueError: If no layer with a bias runs, one adds a bias whose positions are not known, or
            a gradient is not finite.

    Examples::

        >>> from captum_groupcam.masking.targets import Target
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 1, 1), torch.nn.Flatten())
        >>> network = Network(net, Target.of(0, 1, torch.device("cpu")), (), n_samples=1)
        >>> x = torch.ones(1, 1, 2)
        >>> terms = full_gradients(network, (x,), torch.tensor([0]), [0])
        >>> (terms.at_inputs[0].sum() + terms.at_biases[0].sum() - net(x)[0, 0]).abs().item() < 1e-6
        True
    """
    module = _compiled.on_one_device(network.forward_func)
    if not isinstance(module, Module):
        raise TypeError(
            "FullGrad finds biases in a torch.nn.Module, got a function: make a module of it, of "
            "which the network is a part."
        )
    device, inputs = inputs[0].device, tuple(map(_in_float32, inputs))
    with (
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        _compiled.uncompiled(),
        _added_biases(module) as seen,
    ):
        leaves = [inputs[which].detach().clone().requires_grad_() for which in explained]
        given = list(inputs)
        for which, leaf in zip(explained, leaves, strict=True):
            given[which] = leaf.clone()  # layers that work in place must not meet a leaf
        output = _captum.run_forward(module, tuple(given), network.arguments(samples))
        values = network.select(output, samples)
    _check_biases(seen, leaves[0].dim())
    places = [*leaves, *(output for output, _ in seen.found)]
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        gradients = torch.autograd.grad(values.sum(), places, allow_unused=True)
    factors = [*(leaf.detach() for leaf in leaves), *(bias for _, bias in seen.found)]
    terms = [
        torch.zeros_like(place) * factor if gradient is None else gradient.detach() * factor
        for gradient, place, factor in zip(gradients, places, factors, strict=True)
    ]
    for term in terms:
        finite(term, "full gradients")
    reached = [_reached(output, leaves) for output, _ in seen.found]
    return FullGradients(terms[: len(leaves)], terms[len(leaves) :], reached)


def _reached(output: Tensor, leaves: list[Tensor]) -> set[int]:
    """Which leaves a tensor depends on; all of them if it is none."""
    everyone = set(range(len(leaves)))
    if len(leaves) == 1:
        return everyone
    ends = {get_gradient_edge(leaf).node: index for index, leaf in enumerate(leaves)}
    found: set[int] = set()
    known, waiting = set(), [output.grad_fn]
    while waiting and found != everyone:
        node = waiting.pop()
        if node is None or node in known:
            continue
        known.add(node)
        found |= {ends[node]} if node in ends else set()
        waiting += [before for before, _ in node.next_functions]
    return found or everyone


class _AddedBiases(WatchedFunctions):
    """Collects what has a bias added to the channels at each position, and the biases."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Tensor, Tensor]] = []
        #: Modules with a bias of their own that have run, by it.
        self.ran: dict[int, Module] = {}
        self._known: set[int] = set()
        self._last: list[str] = []

    def unknown(self) -> list[str]:
        """The kinds of what has added a bias in another way."""
        others = [type(m).__name__ for key, m in self.ran.items() if key not in self._known]
        return list(dict.fromkeys([*self._last, *others]))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        names = _ADDING.get(func) or _ADDING_LAST.get(func)
        if names is None:
            return output
        given = {**dict(zip(names, args, strict=False)), **(kwargs or {})}
        self._known.add(id(given.get("bias")))
        bias = _shift(given) if func is F.batch_norm else given.get("bias")
        if bias is None or output.dim() < 3 or not output.requires_grad:
            return output
        if func in _ADDING_LAST:
            self._last.append(func.__name__)
            return output
        self.found.append((output, bias.detach().view(-1, *(1 for _ in output.shape[2:]))))
        return output.clone()  # what works in place on it leaves the one that is kept


def _check_biases(seen: _AddedBiases, dims: int) -> None:
    """Refuses a network that adds biases in ways of which nothing is known, or none."""
    others = (f"{output.dim() - 2}-D layers" for output, _ in seen.found if output.dim() != dims)
    unknown = ", ".join(dict.fromkeys([*seen.unknown(), *others]))
    if unknown:
        raise ValueError(
            "FullGrad adds up what biases contribute at each position of N x C x spatial, and does "
            f"not know where those of {unknown} lie: its map would leave them out. Choose a method "
            "of a layer, such as LayerCAM, or integrated gradients."
        )
    if not seen.found:
        raise ValueError(
            "FullGrad needs biases: no convolution or norm with a bias runs in this network. "
            "Choose a method of a layer."
        )


@contextmanager
def _added_biases(network: Module) -> Iterator[_AddedBiases]:
    """Watches a pass of a network."""
    seen = _AddedBiases()

    def note(module: Module, _args: Any) -> None:
        seen.ran.update((id(bias), module) for bias in _own_biases(module))

    handles = [m.register_forward_pre_hook(note) for m in network.modules() if _own_biases(m)]
    try:
        with seen:
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def _own_biases(module: Module) -> list[Tensor]:
    held = (*module._parameters.items(), *module._buffers.items())
    return [t for name, t in held if t is not None and (name == "bias" or name.endswith("_bias"))]


def _shift(given: dict[str, Any]) -> Tensor | None:
    """What a batch norm adds, whatever its input: its mean shifted and scaled too."""
    bias: Tensor | None = given.get("bias")
    mean, variance, weight = (given.get(n) for n in ("running_mean", "running_var", "weight"))
    if mean is None or variance is None or given.get("training"):
        return bias
    scale = (variance + given.get("eps", 1e-5)).rsqrt()
    shift: Tensor = -mean * (scale if weight is None else scale * weight)
    return shift if bias is None else bias + shift
