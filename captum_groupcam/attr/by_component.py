"""Smoother maps: the pattern that most channels agree on, instead of their sum."""

from __future__ import annotations

from torch import Tensor

from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.attr.maps import principal_component

__all__ = ["by_component"]


def by_component(method: LayerFormula) -> LayerFormula:
    """A smoother version of a method: it shows the pattern that most channels agree on.

    Grad-CAM and its relatives make a small map of each channel of the layer, and add these maps up.
    Channels that only one spot excites make the sum noisy. Here the maps are not added: of all
    of them together, the one pattern is taken that explains most of how they vary over the image,
    their first principal component. What a single channel does on its own is left out.

    It is ``eigen_smooth=True`` in pytorch-grad-cam. Any method works that adds up channels:
    :class:`~captum_groupcam.GradCAM`, :class:`~captum_groupcam.LayerCAM` and their kind. Use what
    it returns like the method itself. The map has mean zero: ``relu_attributions=True`` keeps what
    is above the mean.

    Args:
        method (LayerFormula): The method.

    Returns:
        LayerFormula: The smoother method, with the same network and layer.

    Raises:
        TypeError: If the method is not a sum over channels of activations and gradients, such as
            Eigen-CAM. Where only its map shows that, ``attribute`` raises it.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> from captum_groupcam import LayerCAM
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> layer_cam = LayerCAM(nn.Sequential(features, head).eval(), features)
        >>> smooth = by_component(layer_cam)
        >>> smooth.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """
    whole = type(method)
    if not (isinstance(method, LayerFormula) and whole._maps is LayerFormula._maps):
        raise TypeError(
            f"The map of {whole.__name__} is not a sum over channels of activations and gradients."
        )

    def formula(activations: Tensor, gradients: Tensor) -> Tensor:
        # Of one channel, the formula gives what it adds.
        channels = (t.flatten(0, 1).unsqueeze(1) for t in (activations, gradients))
        terms = whole.formula(*channels).view_as(activations)
        expected = whole.formula(activations, gradients)
        error = (terms.sum(1, keepdim=True) - expected).abs().max()
        if error > 1e-3 * expected.abs().max():
            raise TypeError(f"The map of {whole.__name__} is not a sum over channels.")
        return principal_component(terms)

    names = {"formula": staticmethod(formula), "title": f"{whole.get_name()}, smoothed"}
    related: type[LayerFormula] = type(f"Smoothed{whole.__name__}", (whole,), names)
    return related(method.forward_func, method.layer, method.device_ids)
