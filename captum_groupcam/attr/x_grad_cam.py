"""XGrad-CAM: axiom-based Grad-CAM (arXiv 2008.02312)."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.attr.maps import weighted_sum

__all__ = ["XGradCAM"]


class XGradCAM(LayerFormula):
    r"""Weighs the channels of a layer by their gradients where they are active.

    .. math::

        L = \sum_k w_k A_k, \quad w_k =
        \frac{\sum_p A_k(p) \, g_k(p)}{\sum_p A_k(p)}, \quad
        g_k = \frac{\partial y_c}{\partial A_k}

    The weight is a mean of the gradient, weighted by the activation, so it is meant for layers
    whose activations have one sign, such as behind a ReLU: elsewhere the denominator may come close
    to zero. A channel that sums to zero adds nothing. The paper's map is positive:
    ``relu_attributions=True``.

    Source: Fu, Hu, Dong, Guo, Gao and Li, "Axiom-based Grad-CAM: Towards Accurate Visualization and
    Explanation of CNNs", arXiv 2008.02312, eq. 7.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> method = XGradCAM(nn.Sequential(features, head).eval(), features)
        >>> method.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    title = "XGrad-CAM"

    @staticmethod
    def formula(activations: Tensor, gradients: Tensor) -> Tensor:
        """The sum of the channels by their mean gradients, weighted by activation."""
        sums = activations.flatten(2).sum(2)
        products = (activations * gradients).flatten(2).sum(2)
        weights = torch.where(sums != 0, products / torch.where(sums != 0, sums, 1), 0)
        return weighted_sum(activations, weights)
