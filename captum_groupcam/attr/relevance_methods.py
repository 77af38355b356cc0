"""Captum's methods that pass relevance back from module to module, summed over channels."""

from __future__ import annotations

from typing import Literal, cast

import torch
from captum.attr import LRP, DeepLift, InputXGradient
from torch import Tensor, nn
from torch.nn import Module

from captum_groupcam._captum import LRP_RULES, TargetType
from captum_groupcam.attr._around_captum import (
    clipped,
    linked_copy,
    replace_modules,
    signed_sum,
)
from captum_groupcam.attr._separate import separate_calls, separate_windows

__all__ = ["deep_lift", "lrp"]

#: Linear modules that Captum has no rule for.
_LINEAR = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout2d, nn.ZeroPad2d)
_WITHOUT_THEM = (
    "integrated_gradients and gradient_shap, whose values add up for any network, or Grad-CAM and "
    "its kind"
)


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
            f"SiLU. Use {_WITHOUT_THEM}."
        )
    return signed_sum(cast(Tensor, attributions))


def lrp(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    rule: Literal["gamma", "epsilon", "alpha1_beta0"] = "gamma",
) -> Tensor:
    """Layer-wise relevance propagation (Bach et al. 2015), signed relevance summed over channels.

    It has no baseline. For networks of convolutions, linear layers, batch normalisation, pooling,
    ReLU, ReLU6, Tanh and dropout, each a module that is used once (activations may be used several
    times), with nothing but changes of shape and concatenation between them.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        rule (str, optional): The rule for convolutions: "gamma", as Montavon et al. 2019 recommend
            for all but the upper layers; "epsilon", Captum's default, which makes it input times
            gradient if the network has no activation but ReLU; or "alpha1_beta0". Other layers
            have epsilon. Default: "gamma".

    Returns:
        Tensor: N x 1 x H x W.

    Raises:
        ValueError: If there is a module without a rule, one with weights is used several times, or
            something else happens between the modules, such as the addition of a residual network.
    """
    _check_between_modules(model, inputs[:1])
    network = _with_rules(model)
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            module.rule = LRP_RULES[rule]()
    return signed_sum(_propagated(network, inputs, target))


def _propagated(network: Module, inputs: Tensor, target: TargetType) -> Tensor:
    """Captum's LRP, or a ValueError that says why it cannot explain the network."""
    try:
        return cast(Tensor, LRP(network).attribute(inputs, target=target))
    except (TypeError, RuntimeError) as error:
        if "no rule defined" in str(error):
            reason = f"has no rule for a module of this network ({str(error).split(' has ')[0]})"
        elif "used more than once" in str(error):
            reason = "explains modules that are used once; here one is used several times"
        else:
            raise
        raise ValueError(
            f"LRP {reason}. It explains networks of convolutions, linear layers, batch "
            f"normalisation, pooling, ReLU, ReLU6, Tanh and dropout. Use {_WITHOUT_THEM}."
        ) from error


def _with_rules(model: Module, *, only_relu: bool = False) -> Module:
    """A copy with rules for what Captum has none for; with ReLU for every activation, if asked."""
    network = linked_copy(model)

    def other(module: Module) -> Module | None:
        if only_relu and isinstance(module, (nn.ReLU6, nn.Tanh)):
            return nn.ReLU()
        if isinstance(module, nn.Identity) or (isinstance(module, nn.Sequential) and not module):
            return nn.Dropout().eval()  # the same, and has a rule
        return clipped(module)

    replace_modules(network, other)
    for module in network.modules():
        if isinstance(module, _LINEAR):
            module.rule = LRP_RULES["epsilon"]()
    return network


def _check_between_modules(model: Module, inputs: Tensor) -> None:
    """Refuses networks that compute something between their modules, where relevance is lost."""
    # With ReLU for every activation, the epsilon rule makes LRP input times gradient exactly
    # (Shrikumar et al. 2016), if nothing happens between the modules.
    twin = _with_rules(model, only_relu=True)
    with torch.no_grad():
        target = twin(inputs).flatten(1).abs().argmax(1).tolist()
    found = _propagated(twin, inputs, target)
    expected = cast(Tensor, InputXGradient(twin).attribute(inputs, target=target))
    if (found - expected).norm() > 0.01 * expected.norm():
        raise ValueError(
            "LRP passes relevance from module to module, but this network computes something "
            "between its modules, as residual networks do with +. It explains networks of "
            f"modules only, such as VGG, AlexNet and SqueezeNet. Use {_WITHOUT_THEM}."
        )
