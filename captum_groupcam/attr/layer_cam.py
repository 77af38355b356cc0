"""LayerCAM: hierarchical class activation maps (Jiang et al. 2021)."""

from __future__ import annotations

from torch import Tensor

from captum_groupcam.attr.layer_formula import LayerFormula

__all__ = ["LayerCAM"]


class LayerCAM(LayerFormula):
    r"""Weighs every position of a layer by its own gradient, where that is positive.

    .. math::

        L = \sum_k \mathrm{ReLU}(g_k) \odot A_k, \quad g_k = \frac{\partial y_c}{\partial A_k}

    So early layers, too, give maps that lie on the object. The paper's map is positive:
    ``relu_attributions=True``.

    Source: Jiang, Zhang, Hou, Cheng and Wei, "LayerCAM: Exploring Hierarchical Class Activation
    Maps for Localization", IEEE Transactions on Image Processing 30 (2021), pages 5875 to 5888.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> layer_cam = LayerCAM(nn.Sequential(features, head).eval(), features)
        >>> layer_cam.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    title = "LayerCAM"

    @staticmethod
    def formula(activations: Tensor, gradients: Tensor) -> Tensor:
        """The sum of the channels, each position times its positive gradient."""
        return (gradients.relu() * activations).sum(1, keepdim=True)
