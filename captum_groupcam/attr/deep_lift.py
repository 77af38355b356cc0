"""Captum's DeepLIFT, summed over channels."""

from __future__ import annotations

from typing import cast

import torch
from captum.attr import DeepLift
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr._around_captum import signed_sum
from captum_groupcam.attr._network_copy import (
    FOR_ANY_NETWORK,
    clipped,
    linked_copy,
    replace_modules,
)
from captum_groupcam.attr._separate import separate_calls, separate_windows

__all__ = ["deep_lift"]


def deep_lift(model: Module, inputs: Tensor, target: TargetType) -> Tensor:
    """DeepLIFT (Shrikumar et al. 2017), signed contributions summed over channels.

    The rescale rule, against a baseline of zero, which is the mean colour where inputs are
    normalised. Contributions must add up to what the output differs by from that of the baseline;
    they do for networks of linear layers, batch normalisation, ReLU, ReLU6, ELU, LeakyReLU,
    Sigmoid, Tanh, Softplus and max pooling, all as modules. A module may be used several times.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.

    Returns:
        Tensor: N x 1 x H x W.

    Raises:
        ValueError: If the contributions do not add up, as with functions (``F.relu``), products,
            attention, GELU or SiLU.
    """
    network = linked_copy(model)
    replace_modules(network, clipped)
    separate_windows(network)
    separate_calls(network, inputs)
    attributions, delta = DeepLift(network).attribute(
        inputs, torch.zeros_like(inputs), target=target, return_convergence_delta=True
    )
    total = attributions.flatten(1).sum(1)
    rounding = 1e-5 * attributions.abs().flatten(1).sum(1)
    allowed = 1e-3 * (total - delta).abs() + rounding
    if (delta.abs() > allowed).any():
        raise ValueError(
            f"DeepLIFT's contributions add up to {total.tolist()} instead of the "
            f"{(total - delta).tolist()} that the output differs by from the baseline's: the "
            "network computes what DeepLIFT has no rule for. It has one for linear layers, batch "
            "normalisation, ReLU, ReLU6, ELU, LeakyReLU, Sigmoid, Tanh, Softplus and max pooling "
            "as modules, none for functions such as F.relu, for products, attention, GELU and "
            f"SiLU. Use {FOR_ANY_NETWORK}."
        )
    return signed_sum(cast(Tensor, attributions))
