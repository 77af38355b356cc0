"""What inputs and biases contribute to an output: full gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Module

from captum_groupcam import _captum, _compiled
from captum_groupcam.masking.network import Network, finite

__all__ = ["FullGradients", "full_gradients"]

_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class FullGradients(NamedTuple):
    """The terms that add up to an output, but for biases of layers without positions.

    Attributes:
        at_inputs (list of Tensor): Q x C x spatial, gradient times input.
        at_biases (list of Tensor): Q x K x spatial, gradient times bias, for each bias.
    """

    at_inputs: list[Tensor]
    at_biases: list[Tensor]


def full_gradients(
    network: Network, inputs: tuple[Tensor, ...], samples: Tensor, explained: Sequence[int]
) -> FullGradients:
    """Gradients at inputs and at the outputs of layers with a bias, times inputs and biases.

    Args:
        network (Network): Its forward function is a module.
        inputs (tuple of Tensor): Inputs, Q x C x spatial each.
        samples (Tensor): Q indices of the samples that they come from.
        explained (sequence of int): Places of the inputs that are explained.

    Returns:
        FullGradients: The terms, in the order of inputs and layers.

    Raises:
        TypeError: If the forward function is no module.
        ValueError: If no layer with a bias runs, or a gradient is not finite.

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
    with torch.enable_grad(), _compiled.uncompiled(), _biased_outputs(module) as outputs:
        leaves = [inputs[which].detach().clone().requires_grad_() for which in explained]
        seen = list(inputs)
        for which, leaf in zip(explained, leaves, strict=True):
            seen[which] = leaf.clone()  # layers that work in place must not meet a leaf
        values = network.select(
            _captum.run_forward(module, tuple(seen), network.arguments(samples)), samples
        )
        if not outputs:
            raise ValueError(
                "FullGrad needs biases: no convolution or batch norm with a bias runs in this "
                "network. Transformers have none: choose a method of a layer."
            )
        places = [*leaves, *(output for output, _ in outputs)]
        gradients = torch.autograd.grad(values.sum(), places, allow_unused=True)
    factors = [*(leaf.detach() for leaf in leaves), *(bias for _, bias in outputs)]
    terms = [
        torch.zeros_like(place) * factor if gradient is None else gradient.detach() * factor
        for gradient, place, factor in zip(gradients, places, factors, strict=True)
    ]
    for term in terms:
        finite(term, "full gradients")
    return FullGradients(terms[: len(leaves)], terms[len(leaves) :])


@contextmanager
def _biased_outputs(network: Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collects the outputs with positions of layers with a bias, and the biases."""
    found: list[tuple[Tensor, Tensor]] = []

    def keep(module: Module, _args: Any, output: Tensor) -> Tensor | None:
        bias = _bias(module)
        if bias is None or output.dim() < 3 or not output.requires_grad:
            return None
        found.append((output, bias.detach().view(-1, *(1 for _ in output.shape[2:]))))
        return output.clone()  # what works in place on it leaves the one that is kept

    layers = [m for m in network.modules() if isinstance(m, (*_CONVOLUTIONS, *_BATCH_NORMS))]
    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _bias(layer: Module) -> Tensor | None:
    """What a layer adds, whatever its input: of a batch norm, its mean shifted and scaled too."""
    bias: Tensor | None = getattr(layer, "bias", None)
    if isinstance(layer, _BATCH_NORMS) and layer.running_mean is not None:
        assert layer.running_var is not None
        scale = (layer.running_var + layer.eps).rsqrt()
        scale = scale if layer.weight is None else scale * layer.weight
        shift = -layer.running_mean * scale
        return shift if bias is None else bias + shift
    return bias
