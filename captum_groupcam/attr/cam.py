"""CAM: class activation mapping (arXiv 1512.04150)."""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from captum_groupcam import _compiled
from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.attr.maps import weighted_sum
from captum_groupcam.masking.call import Call
from captum_groupcam.masking.targets import Target
from captum_groupcam.networks._linear_calls import LinearCall, LinearCalls
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["CAM"]


class CAM(LayerFormula):
    r"""Explains networks that end in global average pooling and one linear layer by its weights.

    .. math::

        M_c = \sum_k w_k^c A_k

    There the output is :math:`y_c = b_c + \mathrm{mean}_{ij} M_c`, which is checked for the samples
    that are explained; a network that ends otherwise is a ValueError that says what was found. A
    constant factor of the pooling belongs to the weights, as where it sums instead of averaging. It
    takes two forward passes and no gradient.

    Source: Zhou, Khosla, Lapedriza, Oliva and Torralba, "Learning Deep Features for Discriminative
    Localization", arXiv 1512.04150, eq. 2.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> cam = CAM(nn.Sequential(features, head).eval(), features)
        >>> cam.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    title = "CAM"
    uses_gradients = False

    def _maps(self, call: Call, layer: TargetLayer) -> Tensor:
        activations = call.activations(layer)
        return weighted_sum(activations, _class_weights(call, activations))


def _class_weights(call: Call, activations: Tensor) -> Tensor:
    """The weights of each sample's class in the linear layer after the pooling: N x K."""
    network = replace(call.network, forward_func=_compiled.eager(call.network.forward_func))
    target = network.target
    assert isinstance(target, Target)
    pooled = activations.flatten(2).mean(-1)

    def work(rows: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor]:
        with _compiled.uncompiled(), LinearCalls() as linear:
            outputs = network.scores(rows, samples)
        features = pooled[samples]
        fed = []
        for place, last in enumerate(linear.calls):
            factor = _factor(last, features)
            if factor is not None:
                fed.append(place)
                classes = F.linear(factor * features, *last.parameters(features))
                if last.close(target.select(classes, samples), outputs):
                    chosen = 0 if target.indices is None else target.indices[samples, 0]
                    weights = last.weight[chosen].to(features) * factor
                    return (weights.expand_as(features),)
        raise ValueError(
            "CAM explains networks that pool the layer by its mean over positions, give that to "
            "one linear layer (or 1 x 1 convolution), and return what it gives. Here "
            f"{_found(linear.calls, fed, features)}. Choose the layer that is pooled, leave out "
            "what comes after the linear layer (softmax), or use Grad-CAM, which needs neither."
        )

    (weights,) = network.by_sample(call.inputs, work)
    return weights


def _factor(call: LinearCall, features: Tensor) -> float | None:
    """What the mean over positions is multiplied by, if that is what a linear layer gets."""
    if call.inputs.shape != features.shape:
        return None
    given = call.inputs.to(features)
    if call.close(given, features):
        return 1.0
    factor = float((given * features).sum() / features.square().sum())
    return factor if factor and call.close(given, factor * features) else None


def _found(calls: list[LinearCall], fed: list[int], features: Tensor) -> str:
    """How a network ends that CAM does not explain."""
    behind = len(calls) - 1 - fed[-1] if fed else 0
    if behind:
        return f"{behind} more follow{'s' * (behind == 1)} the linear layer that gets the mean"
    if fed:
        return "what the linear layer gives is changed before it is returned"
    if any(call.inputs.shape == features.shape for call in calls):
        return (
            f"a linear layer gets {features.shape[1]} values, but they are not the mean of the "
            "layer over its positions (another pooling, or a norm or activation on the way)"
        )
    return f"no linear layer gets {features.shape[1]} values, one for each channel of the layer"
