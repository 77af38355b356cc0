"""Finer-CAM (arXiv 2501.11309)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr._shared import shared_arguments
from captum_groupcam.attr.functional.finer_cam import contrasted
from captum_groupcam.attr.grad_cam import GradCAM
from captum_groupcam.attr.layer_formula import LayerFormula, is_formula_of_gradients
from captum_groupcam.masking.call import Call, TensorOrTuple
from captum_groupcam.masking.checks import check_between, check_count
from captum_groupcam.networks.target_layer import LayerCall, TargetLayer
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["FinerCAM"]


class FinerCAM(LayerFormula):
    r"""Shows what sets a class apart from those that the network takes it for most likely.

    It is Grad-CAM, or another method that takes a gradient, of

    .. math::

        y_c - \gamma \, \frac{1}{T} \sum_{t=1}^{T} y_{d_t}

    where the T classes :math:`d_t` are those whose outputs come closest to that of c.

    Source: Zhang, Gu, Berger-Wolf et al., "Finer-CAM: Spotting the Difference Reveals Finer Details
    for Visual Explanation", arXiv 2501.11309.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> finer_cam = FinerCAM(nn.Sequential(features, head).eval(), features)
        >>> finer_cam.attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    title = "Finer-CAM"

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
        base: type[LayerFormula] = GradCAM,
        strength: float = 0.6,
        n_references: int = 3,
        references: tuple[int, ...] = (),
        reshape_transform: ReshapeTransform | None = None,
        layer_call: LayerCall = None,
        internal_batch_size: int | None = None,
    ) -> TensorOrTuple:
        r"""Computes the map of each sample, at the resolution of the layer.

        Args:
            inputs (Tensor or tuple of Tensor): As in :meth:`LayerFormula.attribute`.
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            attribute_to_layer_input (bool, optional): {attribute_to_layer_input}
            relu_attributions (bool, optional): Whether only positive attributions are returned, as
                in the paper. Default: False, as in Captum.
            base (type, optional): The method, a formula of gradients. Default: ``GradCAM``.
            strength (float, optional): :math:`\gamma`; 0 is the method itself. Default: 0.6.
            n_references (int, optional): T. Default: 3, or all other classes if they are fewer.
            references (tuple of int, optional): The classes themselves. Default: (), those whose
                outputs come closest, for each sample.
            reshape_transform (Callable, optional): {reshape_transform}
            layer_call (int or tuple of int, optional): {layer_call}
            internal_batch_size (int, optional): {internal_batch_size}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x spatial, as
            :meth:`LayerFormula.attribute` returns them.

        Raises:
            TypeError: If an argument has a wrong type, or the method takes no gradient.
            ValueError: As :meth:`LayerFormula.attribute`, or if there are no other classes.
        """
        if not is_formula_of_gradients(base):
            raise TypeError(
                "base must be a method that takes a gradient and has a formula of its own, such "
                f"as GradCAM or LayerCAM, got {getattr(base, '__name__', repr(base))}."
            )
        check_between("strength", strength, 0, torch.inf, ends="[)")
        check_count("n_references", n_references)
        method = base(self.forward_func, self.layer, self.device_ids)

        def finer(call: Call, layer: TargetLayer) -> Tensor:
            return method._maps(contrasted(call, strength, n_references, references), layer)

        layer = TargetLayer(self.layer, "", attribute_to_layer_input, reshape_transform, layer_call)
        return self._attribute(
            finer,
            inputs,
            target,
            additional_forward_args,
            layer,
            relu_attributions,
            internal_batch_size,
        )
