"""Element-wise Grad-CAM: what raises the output, position by position."""

from __future__ import annotations

from torch import Tensor

from captum_groupcam.attr.layer_formula import LayerFormula

__all__ = ["ElementWiseCAM"]


class ElementWiseCAM(LayerFormula):
    r"""Sums what raises the output, position by position and channel by channel.

    .. math::

        L = \sum_k \mathrm{ReLU}(g_k \odot A_k), \quad
        g_k = \frac{\partial y_c}{\partial A_k}

    A channel that speaks against the class takes nothing away from one that speaks for it, as it
    does in :class:`~captum_groupcam.attr.hires_cam.HiResCAM`. The map is positive.

    Source: ``GradCAMElementWise`` of the package pytorch-grad-cam; there is no paper.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> method = ElementWiseCAM(nn.Sequential(features, head).eval(), features)
        >>> method.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    title = "Element-wise Grad-CAM"

    @staticmethod
    def formula(activations: Tensor, gradients: Tensor) -> Tensor:
        """The sum of the positive products of activations and gradients."""
        return (gradients * activations).relu().sum(1, keepdim=True)
