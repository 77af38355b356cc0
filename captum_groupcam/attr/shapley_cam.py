"""ShapleyCAM (arXiv 2501.06261)."""

from __future__ import annotations

from torch import Tensor

from captum_groupcam.attr.grad_cam import GradCAM
from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.masking.call import Call
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["ShapleyCAM"]


class ShapleyCAM(LayerFormula):
    r"""Grad-CAM with weights that look one order further: Shapley values of a layer's channels.

    .. math::

        L = \sum_k w_k A_k, \quad w_k = \frac{1}{|A_k|} \sum_p \Big(g - \frac{1}{2} H A\Big)_k(p)

    where g are the gradients and H is the Hessian of the output with respect to the layer; the
    product of H with A costs a second backward pass. Where the network behind the layer is linear
    in pieces, as with ReLU, H is zero and the map is that of
    :class:`~captum_groupcam.attr.grad_cam.GradCAM`. The paper's map is positive:
    ``relu_attributions=True``.

    Source: Cai, "CAMs as Shapley Value-based Explainers", arXiv 2501.06261.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.Conv2d(8, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(1152, 5))
        >>> method = ShapleyCAM(nn.Sequential(features, head).eval(), features)
        >>> method.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    title = "ShapleyCAM"

    def _asked(self, call: Call, layer: TargetLayer) -> tuple[Tensor, Tensor]:
        gradients, products, activations = call.curvature(layer)
        return gradients - products / 2, activations

    formula = staticmethod(GradCAM.formula)
