"""Smoother maps: the first principal component of what a method would add up."""

from __future__ import annotations

from torch import Tensor

from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.attr.maps import principal_component

__all__ = ["by_component"]


def by_component(method: LayerFormula) -> LayerFormula:
    """A method whose map is the first principal component of what it would add up.

    That is ``eigen_smooth`` in pytorch-grad-cam, for each method that is a sum over channels:
    :class:`~captum_groupcam.GradCAM`, :class:`~captum_groupcam.LayerCAM` and their kind.

    Args:
        method (LayerFormula): The method.

    Returns:
        LayerFormula: Its relative, with the same network and layer.

    Raises:
        TypeError: If the method is no sum over channels of activations and gradients; where only
            its map shows that, by ``attribute``.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> from captum_groupcam import LayerCAM
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> smooth = by_component(LayerCAM(nn.Sequential(features, head).eval(), features))
        >>> smooth.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """
    whole = type(method)
    if not (isinstance(method, LayerFormula) and whole._maps is LayerFormula._maps):
        raise TypeError(
            f"The map of {whole.__name__} is no sum over channels of activations and gradients."
        )

    def formula(activations: Tensor, gradients: Tensor) -> Tensor:
        # Of one channel, the formula gives what it adds.
        channels = (t.flatten(0, 1).unsqueeze(1) for t in (activations, gradients))
        terms = whole.formula(*channels).view_as(activations)
        expected = whole.formula(activations, gradients)
        error = (terms.sum(1, keepdim=True) - expected).abs().max()
        if error > 1e-3 * expected.abs().max():
            raise TypeError(f"The map of {whole.__name__} is no sum over channels.")
        return principal_component(terms)

    names = {"formula": staticmethod(formula), "title": f"{whole.get_name()}, smoothed"}
    related: type[LayerFormula] = type(f"Smoothed{whole.__name__}", (whole,), names)
    return related(method.forward_func, method.layer, method.device_ids)
