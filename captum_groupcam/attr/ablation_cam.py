"""Ablation-CAM (Desai and Ramaswamy 2020)."""

from __future__ import annotations

from torch import Tensor

from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.attr.maps import weighted_sum
from captum_groupcam.masking.call import Call
from captum_groupcam.masking.queries import score_samples, score_stream
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["AblationCAM"]


class AblationCAM(LayerFormula):
    r"""Weighs the channels of a layer by how far the output falls without them.

    .. math::

        L = \sum_k w_k A_k, \quad w_k = y_c - y_c^{(k)}

    where :math:`y_c^{(k)}` is the output with channel k set to zero. That costs one forward pass
    for each channel, but for those that are zero already, in chunks of ``internal_batch_size``, and
    no gradient. The paper divides the weights by :math:`y_c`, one number for all channels of a
    sample, which would turn the map around where the logit is negative; that is left out. The
    paper's map is positive: ``relu_attributions=True``.

    Of a transformer, the channel is set to zero where it lies on the grid that
    ``reshape_transform`` gives; class tokens stay.

    Source: Desai and Ramaswamy, "Ablation-CAM: Visual Explanations for Deep Convolutional Network
    via Gradient-free Localization", WACV 2020, eqs. 1 and 2.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> method = AblationCAM(nn.Sequential(features, head).eval(), features)
        >>> method.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    title = "Ablation-CAM"
    uses_gradients = False

    def _maps(self, call: Call, layer: TargetLayer) -> Tensor:
        network, inputs = call.network, call.inputs
        if network.goes_past(layer, inputs):
            raise ValueError(
                f"The input of the layer {type(layer.module).__name__} reaches the output past the "
                "layer, too, as along a shortcut: without a channel there the network would still "
                "see it. Choose the output of a layer, or GradCAM, which counts all ways."
            )
        activations = call.activations(layer, checks_order=True)
        whole = score_samples(network, inputs).unsqueeze(1)

        def ask(samples: Tensor, channels: Tensor) -> Tensor:
            rows = tuple(tensor[samples] for tensor in inputs)
            return network.scores_without(rows, samples, layer, channels)

        active = activations.flatten(2).any(2)
        without = score_stream(network, inputs, active, ask)
        weights = (whole - without).masked_fill(~active, 0)
        return weighted_sum(activations, weights.to(activations))
