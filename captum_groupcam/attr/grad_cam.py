"""Grad-CAM (arXiv 1610.02391) and Grad-CAM++ (arXiv 1710.11063)."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.attr.maps import weighted_sum

__all__ = ["GradCAM", "GradCAMPlusPlus", "channel_weights"]


class GradCAM(LayerFormula):
    r"""Weighs the channels of a layer by their mean gradients.

    .. math::

        L = \sum_k w_k A_k, \quad w_k = \frac{1}{|A_k|} \sum_p \frac{\partial y_c}{\partial A_k(p)}

    It is :class:`captum.attr.LayerGradCam`, and explains transformers too, by a
    ``reshape_transform``. The paper's map is positive: ``relu_attributions=True``.

    Source: Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, "Grad-CAM: Visual Explanations
    from Deep Networks via Gradient-based Localization", arXiv 1610.02391, eqs. 1 and 2.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> grad_cam = GradCAM(nn.Sequential(features, head).eval(), features)
        >>> attributions = grad_cam.attribute(torch.rand(2, 3, 16, 16), target=3)
        >>> attributions.shape
        torch.Size([2, 1, 14, 14])
        >>> GradCAM.interpolate(attributions, (16, 16), "bilinear").shape
        torch.Size([2, 1, 16, 16])
    """

    title = "Grad-CAM"

    @staticmethod
    def formula(activations: Tensor, gradients: Tensor) -> Tensor:
        """The sum of the channels by their mean gradients."""
        return weighted_sum(activations, gradients.flatten(2).mean(2))


class GradCAMPlusPlus(LayerFormula):
    r"""Grad-CAM with weights that count how far a channel is active, not only how strongly.

    .. math::

        L = \sum_k w_k A_k

    with the weights of :func:`channel_weights`. The paper's map is positive:
    ``relu_attributions=True``.

    Source: Chattopadhay, Sarkar, Howlader and Balasubramanian, "Grad-CAM++: Generalized
    Gradient-based Visual Explanations for Deep Convolutional Networks", arXiv 1710.11063.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> method = GradCAMPlusPlus(nn.Sequential(features, head).eval(), features)
        >>> method.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    title = "Grad-CAM++"

    @staticmethod
    def formula(activations: Tensor, gradients: Tensor) -> Tensor:
        """The sum of the channels by :func:`channel_weights`."""
        return weighted_sum(activations, channel_weights(activations, gradients))


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
