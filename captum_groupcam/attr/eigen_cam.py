"""Eigen-CAM (arXiv 2008.00299), and the same of activations times gradients."""

from __future__ import annotations

from torch import Tensor

from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.attr.maps import principal_component
from captum_groupcam.masking.call import Call
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["EigenCAM", "EigenGradCAM"]


class EigenCAM(LayerFormula):
    r"""Shows what varies most in a layer, whatever the class.

    .. math::

        L = \bar{A} v_1, \quad \bar{A} = U \Sigma V^T

    where :math:`\bar{A}` (positions x channels) are the activations of a sample less their mean
    over the positions, see :func:`~captum_groupcam.attr.maps.principal_component`. It takes one
    forward pass and no gradient. The target is checked and changes nothing.

    Source: Muhammad and Yeasin, "Eigen-CAM: Class Activation Map using Principal Components",
    arXiv 2008.00299.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> method = EigenCAM(nn.Sequential(features, head).eval(), features)
        >>> method.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    title = "Eigen-CAM"
    uses_gradients = False

    def _maps(self, call: Call, layer: TargetLayer) -> Tensor:
        return principal_component(call.activations(layer, check_target=True))


class EigenGradCAM(LayerFormula):
    r"""Shows what varies most among the activations times the gradients of a class.

    .. math::

        L = \bar{B} v_1, \quad \bar{B} = U \Sigma V^T, \quad
        B_k = g_k \odot A_k, \quad g_k = \frac{\partial y_c}{\partial A_k}

    Source: ``EigenGradCAM`` of the package pytorch-grad-cam, after
    :class:`EigenCAM`.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> method = EigenGradCAM(nn.Sequential(features, head).eval(), features)
        >>> method.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    title = "Eigen-Grad-CAM"

    @staticmethod
    def formula(activations: Tensor, gradients: Tensor) -> Tensor:
        """The first principal component of the products of activations and gradients."""
        return principal_component(gradients * activations)
