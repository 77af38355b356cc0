"""Captum's layer-wise relevance propagation (LRP), summed over channels."""

from __future__ import annotations

from typing import Literal, cast

import torch
from captum.attr import LRP, InputXGradient
from torch import Tensor, nn
from torch.nn import Module

from captum_groupcam._captum import LRP_RULES, TargetType
from captum_groupcam.attr._around_captum import signed_sum
from captum_groupcam.attr._network_copy import (
    FOR_ANY_NETWORK,
    clipped,
    linked_copy,
    replace_modules,
)

__all__ = ["lrp"]

#: Linear modules that Captum has no rule for.
_LINEAR = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout2d, nn.ZeroPad2d)


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
            f"normalisation, pooling, ReLU, ReLU6, Tanh and dropout. Use {FOR_ANY_NETWORK}."
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
            f"modules only, such as VGG, AlexNet and SqueezeNet. Use {FOR_ANY_NETWORK}."
        )
