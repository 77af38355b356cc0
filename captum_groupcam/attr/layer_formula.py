"""The base of methods whose map is a formula of a layer's activations and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from captum.attr import LayerAttribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr._bases import explained
from captum_groupcam.attr._shared import Titled, shared_arguments
from captum_groupcam.masking.call import (
    Call,
    TensorOrTuple,
    leveled,
    warn_of_zero_maps,
    without_rounding,
)
from captum_groupcam.masking.network import raw_score
from captum_groupcam.networks.target_layer import LayerCall, TargetLayer
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["LayerFormula", "is_formula_of_gradients"]


@shared_arguments
class LayerFormula(Titled, LayerAttribution):
    r"""A map at the resolution of a layer, by a formula of its activations and gradients.

    A method of this kind is its :meth:`formula`. All are drop-ins for
    :class:`captum.attr.LayerGradCam`. Bring their maps to the resolution of the input with
    ``LayerAttribution.interpolate(attributions, inputs.shape[2:], "bilinear")``.

    Args:
        forward_func (Callable): {forward_func}
        layer (torch.nn.Module): {layer}
        device_ids (list of int, optional): {device_ids}

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> class Activation(LayerFormula):
        ...     @staticmethod
        ...     def formula(activations, gradients):
        ...         return activations.mean(1, keepdim=True)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> network = nn.Sequential(features, head).eval()
        >>> Activation(network, features).attribute(torch.rand(2, 3, 16, 16), target=3).shape
        torch.Size([2, 1, 14, 14])
    """

    #: Whether the map is made of a gradient of the output.
    uses_gradients: ClassVar[bool] = True

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
        reshape_transform: ReshapeTransform | None = None,
        layer_call: LayerCall = None,
        internal_batch_size: int | None = None,
    ) -> TensorOrTuple:
        """Computes the map of each sample, at the resolution of the layer.

        Args:
            inputs (Tensor or tuple of Tensor): {unmasked_inputs}
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            attribute_to_layer_input (bool, optional): {attribute_to_layer_input}
            relu_attributions (bool, optional): Whether only positive attributions are returned, as
                in most of the papers. Default: False, as in Captum.
            reshape_transform (Callable, optional): {reshape_transform}
            layer_call (int or tuple of int, optional): {layer_call}
            internal_batch_size (int, optional): {internal_batch_size}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x spatial at the resolution
            of the layer, float32 or wider. If inputs is a tuple, a tuple: the map for each input
            with spatial dimensions, zero (N x 1) for others.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: If the layer is never called, has several outputs or no spatial dimensions;
                if the target is out of range; if inputs or outputs are not finite; if batch sizes
                do not match; or if an option is out of range.
        """
        return self._attribute(
            self._maps,
            inputs,
            target,
            additional_forward_args,
            TargetLayer(self.layer, "", attribute_to_layer_input, reshape_transform, layer_call),
            relu_attributions,
            internal_batch_size,
        )

    def _attribute(
        self,
        maps_of: Callable[[Call, TargetLayer], Tensor],
        inputs: TensorOrTuple,
        target: _captum.TargetType,
        additional_forward_args: Any,
        layer: TargetLayer,
        relu_attributions: bool,
        internal_batch_size: int | None,
    ) -> TensorOrTuple:
        """What every call does, for methods with options of their own, too."""

        def of_call(call: Call, layer: TargetLayer) -> tuple[Tensor, ...]:
            maps = call.by_parts(lambda part: maps_of(part, layer))
            maps = leveled(maps.relu() if relu_attributions else maps)
            warn_of_zero_maps(None, (maps,))
            return call.for_each_input(maps)

        return explained(
            self.forward_func,
            lambda call: call.for_all(layer, of_call),
            inputs,
            target,
            additional_forward_args,
            masked=False,
            at_layer=True,
            score_func=raw_score,
            internal_batch_size=internal_batch_size,
            device_ids=self.device_ids,
        )

    def _maps(self, call: Call, layer: TargetLayer) -> Tensor:
        """The map; the place to override for methods without gradients."""
        gradients, activations = self._asked(call, layer)
        maps = self.formula(activations, gradients)
        # Channels that cancel leave rounding; what they add up to is asked only where it may be so.
        most = activations.abs().flatten(2).amax(2) * gradients.abs().flatten(2).amax(2)
        if (maps.abs().flatten(1).amax(1) > 1e-3 * most.sum(1)).all():
            return maps
        return without_rounding(maps, self.formula(activations.abs(), gradients.abs()))

    def _asked(self, call: Call, layer: TargetLayer) -> tuple[Tensor, Tensor]:
        """Gradients and activations; the place to override for other derivatives."""
        return call.gradients_and_activations(layer)

    @staticmethod
    def formula(activations: Tensor, gradients: Tensor) -> Tensor:
        """The method itself.

        Args:
            activations (Tensor): N x K x spatial, A.
            gradients (Tensor): N x K x spatial, those of the output at the target with respect
                to A.

        Returns:
            Tensor: The map of each sample, N x 1 x spatial.

        Raises:
            NotImplementedError: If a class has none.
        """
        raise NotImplementedError("A layer method has a formula of activations and gradients.")


def is_formula_of_gradients(method: object) -> bool:
    """Whether a method takes a gradient, and is a formula of its own.

    Args:
        method (object): A class, if it is one.

    Returns:
        bool: Whether it is so, also if it makes its map in another way than by ``formula``.

    Examples::

        >>> is_formula_of_gradients(LayerFormula)
        False
    """
    return (
        isinstance(method, type)
        and issubclass(method, LayerFormula)
        and method.uses_gradients
        and (method.formula is not LayerFormula.formula or method._maps is not LayerFormula._maps)
    )
