"""KPCA-CAM (arXiv 2410.00267)."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr._extras import imported
from captum_groupcam.attr._shared import shared_arguments
from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.attr.maps import with_positions
from captum_groupcam.masking.call import Call, TensorOrTuple
from captum_groupcam.masking.checks import check_choice
from captum_groupcam.networks.target_layer import LayerCall, TargetLayer
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["KPCACAM"]

Kernel: TypeAlias = Literal["sigmoid", "rbf", "poly", "cosine", "linear"]


class KPCACAM(LayerFormula):
    r"""Shows what varies most in a layer along a curve rather than a line, whatever the class.

    .. math::

        L = \sqrt{\lambda_1} \, v_1, \quad \bar{K} v_1 = \lambda_1 v_1, \quad
        K_{ij} = \kappa(a_i - \bar{a}, a_j - \bar{a})

    where :math:`a_i` are the channels at position i, :math:`\kappa` is the kernel, and
    :math:`\bar{K}` is K centred. It takes one forward pass, and memory that grows with the square
    of the number of positions; the target changes nothing. The map goes along with the sum of the
    channels. A linear kernel gives Eigen-CAM. It needs scikit-learn (extra ``cluster``).

    Source: Karmani et al., "KPCA-CAM: Visual Explainability of Deep Computer Vision Models using
    Kernel PCA", arXiv 2410.00267.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> method = KPCACAM(nn.Sequential(features, head).eval(), features)
        >>> method.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    title = "KPCA-CAM"
    uses_gradients = False

    @_captum.log_usage
    @shared_arguments
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        *,
        kernel: Kernel = "sigmoid",
        reshape_transform: ReshapeTransform | None = None,
        layer_call: LayerCall = None,
        internal_batch_size: int | None = None,
    ) -> TensorOrTuple:
        """Computes the map of each sample, at the resolution of the layer.

        Args:
            inputs (Tensor or tuple of Tensor): As in :meth:`LayerFormula.attribute`.
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            attribute_to_layer_input (bool, optional): {attribute_to_layer_input}
            relu_attributions (bool, optional): Whether negative values are dropped. Default: False.
            kernel (str, optional): "sigmoid", "rbf", "poly", "cosine" or "linear", with
                scikit-learn's default coefficients. Default: "sigmoid", as in the paper.
            reshape_transform (Callable, optional): {reshape_transform}
            layer_call (int or tuple of int, optional): {layer_call}
            internal_batch_size (int, optional): {internal_batch_size}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x spatial, as
            :meth:`LayerFormula.attribute` returns them.

        Raises:
            ModuleNotFoundError: If scikit-learn is missing.
            TypeError: If an argument has a wrong type.
            ValueError: As :meth:`LayerFormula.attribute`, or if there is no such kernel.
        """
        check_choice("kernel", kernel, *get_args(Kernel))
        decomposition = imported("sklearn.decomposition", "scikit-learn", "cluster", by="KPCA-CAM")
        estimator = decomposition.KernelPCA(1, kernel=kernel, random_state=0)

        def maps(call: Call, layer: TargetLayer) -> Tensor:
            activations = with_positions(call.activations(layer, check_target=True))
            return torch.stack([_component(one, estimator) for one in activations]).to(activations)

        layer = TargetLayer(self.layer, "", attribute_to_layer_input, reshape_transform, layer_call)
        return self._attribute(
            maps,
            inputs,
            target,
            additional_forward_args,
            layer,
            relu_attributions,
            internal_batch_size,
        )


def _component(activations: Tensor, estimator: Any) -> Tensor:
    """The first kernel principal component of one sample, K x spatial to 1 x spatial."""
    points = activations.flatten(1).T.cpu().double()
    points, component = points - points.mean(0), points.new_zeros(len(points))
    if points.any():
        component = torch.from_numpy(estimator.fit_transform(points.numpy()))[:, 0]
    component = component * (-1 if component @ points.sum(1) < 0 else 1)
    return component.view(1, *activations.shape[1:])
