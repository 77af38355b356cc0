"""HiResCAM (arXiv 2011.08891)."""

from __future__ import annotations

from torch import Tensor

from captum_groupcam.attr.layer_formula import LayerFormula

__all__ = ["HiResCAM"]


class HiResCAM(LayerFormula):
    r"""Weighs every position of a layer by its own gradient.

    .. math::

        L = \sum_k g_k \odot A_k, \quad g_k = \frac{\partial y_c}{\partial A_k}

    Grad-CAM averages the gradient over the positions first. Where the output is a linear function
    of the layer, the map adds up to it (but for the bias), so that it shows what the network used.
    The paper's map is positive: ``relu_attributions=True``.

    Source: Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of
    convolutional neural networks", arXiv 2011.08891.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> method = HiResCAM(nn.Sequential(features, head).eval(), features)
        >>> method.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    title = "HiResCAM"

    @staticmethod
    def formula(activations: Tensor, gradients: Tensor) -> Tensor:
        """The sum of the channels, each position times its gradient."""
        return (gradients * activations).sum(1, keepdim=True)
