"""Grad-CAM++: Generalized Gradient-based Visual Explanations (arXiv 1710.11063)."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import LayerAttribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr.maps import weighted_sum
from captum_groupcam.masking.call import isolated, prepare
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["GradCAMPlusPlus", "channel_weights"]


def channel_weights(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Weighs channels by the positions where their gradient is positive (eqs. 13 and 19).

    .. math::

        w_k = \sum_{ij} \alpha_{ij}^k \, \mathrm{ReLU}(g_{ij}^k), \quad
        \alpha_{ij}^k = \frac{(g_{ij}^k)^2}{2 (g_{ij}^k)^2 + \sum_{ab} A_{ab}^k \, (g_{ij}^k)^3}

    where g is the gradient of the network's output S and the class score is :math:`Y = \exp(S)`.
    The factor :math:`\exp(S)` of :math:`\partial Y / \partial A`, one for all channels of a sample,
    is left out. The fraction is reduced by :math:`g^2`, so that small gradients need no epsilon.

    Args:
        activations (Tensor): N x K x spatial, A.
        gradients (Tensor): N x K x spatial, g.

    Returns:
        Tensor: N x K. A position where the fraction has no value adds nothing.

    Examples::

        >>> import torch
        >>> channel_weights(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[2.0, -1.0]]]))
        tensor([[0.2500]])
    """
    maps, gradients = activations.flatten(2), gradients.flatten(2)
    denominator = 2 + maps.sum(-1, keepdim=True) * gradients
    counts = (gradients > 0) & (denominator != 0)
    return torch.where(counts, gradients / torch.where(counts, denominator, 1), 0).sum(-1)


class GradCAMPlusPlus(LayerAttribution):
    r"""Grad-CAM with weights that count how far a channel is active, not only how strongly.

    .. math::

        L = \mathrm{ReLU}\Big(\sum_k w_k A_k\Big)

    with the weights of :func:`channel_weights`. Like :class:`captum.attr.LayerGradCam`, of which
    it is a drop-in, it gives maps at the resolution of the layer; bring them to that of the input
    with ``LayerAttribution.interpolate(attributions, inputs.shape[2:], "bilinear")``.

    Source: Chattopadhay, Sarkar, Howlader and Balasubramanian, "Grad-CAM++: Generalized
    Gradient-based Visual Explanations for Deep Convolutional Networks", arXiv 1710.11063.

    Args:
        forward_func (Callable): The forward function of the model or any modification of it.
        layer (torch.nn.Module): The layer whose channels are weighed, usually the last one with
            spatial dimensions.
        device_ids (list of int, optional): Device IDs, necessary only if forward_func applies a
            DataParallel model; not if it is one. Default: None.
    """

    @_captum.log_usage
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = True,
        *,
        reshape_transform: ReshapeTransform | None = None,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """Computes the map of each sample, at the resolution of the layer.

        Args:
            inputs (Tensor or tuple of Tensor): N x C x spatial. For this and what is not explained
                here see :meth:`GroupCAM.attribute() <captum_groupcam.GroupCAM.attribute>`.
            target (int, tuple, Tensor or list, optional): The output that is explained, before any
                softmax. Default: None.
            additional_forward_args (Any, optional): Arguments of forward_func after the inputs.
                Default: None.
            attribute_to_layer_input (bool, optional): Whether the layer's input is meant.
                Default: False.
            relu_attributions (bool, optional): Whether the sum's negative part is dropped, as in
                the paper. Default: True.
            reshape_transform (Callable, optional): Brings activations and gradients to N x K x
                spatial. Default: None.
            internal_batch_size (int, optional): Largest number of samples in one pass.
                Default: None.

        Returns:
            *Tensor* of **attributions**: N x 1 x spatial at the resolution of the layer.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: As for :meth:`GroupCAM.attribute() <captum_groupcam.GroupCAM.attribute>`.

        Examples::

            >>> import torch
            >>> from torch import nn
            >>> _ = torch.manual_seed(0)
            >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
            >>> method = GradCAMPlusPlus(nn.Sequential(features, head).eval(), features)
            >>> attributions = method.attribute(torch.rand(2, 3, 16, 16), target=3)
            >>> attributions.shape
            torch.Size([2, 1, 14, 14])
            >>> LayerAttribution.interpolate(attributions, (16, 16), "bilinear").shape
            torch.Size([2, 1, 16, 16])
        """
        with isolated():
            inputs_, _, network = call = prepare(
                self.forward_func,
                inputs,
                target,
                additional_forward_args,
                baselines=0,
                internal_batch_size=internal_batch_size,
                device_ids=self.device_ids,
            )
            gradients, activations = network.gradients_and_activations(
                self.layer, inputs_, attribute_to_layer_input
            )
            if reshape_transform is not None:
                activations, gradients = map(reshape_transform, (activations, gradients))
            call.check_maps(activations)
            maps = weighted_sum(activations, channel_weights(activations, gradients))
            return maps.relu() if relu_attributions else maps
