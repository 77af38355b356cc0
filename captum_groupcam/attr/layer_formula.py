"""The base of methods whose map is a formula of a layer's activations and gradients."""

from __future__ import annotations

from typing import Any

from captum.attr import LayerAttribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.masking.call import Call, TensorOrTuple, isolated, like_inputs, prepare
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["LayerFormula"]


class LayerFormula(LayerAttribution):
    r"""A map at the resolution of a layer, by a formula of its activations and gradients.

    A method of this kind is its :meth:`formula`. All are drop-ins for
    :class:`captum.attr.LayerGradCam`. Bring their maps to the resolution of the input with
    ``LayerAttribution.interpolate(attributions, inputs.shape[2:], "bilinear")``.

    Args:
        forward_func (Callable): The forward function of the model or any modification of it.
        layer (torch.nn.Module): The layer that is explained, usually the last one with spatial
            dimensions.
        device_ids (list of int, optional): Device IDs, necessary only if forward_func applies a
            DataParallel model; not if it is one. Default: None.

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

    @_captum.log_usage
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        *,
        reshape_transform: ReshapeTransform | None = None,
        internal_batch_size: int | None = None,
    ) -> TensorOrTuple:
        """Computes the map of each sample, at the resolution of the layer.

        Args:
            inputs (Tensor or tuple of Tensor): N x ... each, as the network takes them.
            target (int, tuple, Tensor or list, optional): The output that is explained, before any
                softmax, in any of Captum's forms: see
                :meth:`GroupCAM.attribute() <captum_groupcam.GroupCAM.attribute>`. Default: None.
            additional_forward_args (Any, optional): Arguments of forward_func after the inputs, a
                tuple if several. Tensors of batch size N go with their samples. Default: None.
            attribute_to_layer_input (bool, optional): Whether the layer's input is meant rather
                than its output. Default: False.
            relu_attributions (bool, optional): Whether only positive attributions are returned, as
                in most of the papers. Default: False, as in Captum.
            reshape_transform (Callable, optional): Brings activations and gradients without spatial
                dimensions to N x K x spatial: those of a transformer, for which
                :func:`~captum_groupcam.networks.layers.find_layer` finds it. Default: None.
            internal_batch_size (int, optional): Largest number of samples in one pass; sets the
                peak of memory, not the result. Default: None, a size that runs fast on the device
                (:data:`~captum_groupcam.masking.network.DEFAULT_BATCH_SIZE`).

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x spatial at the resolution
            of the layer, float32 or wider. If inputs is a tuple, a tuple with the same map for each
            of them, and zero (N x 1) for those without spatial dimensions, if others have some.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: If the layer is never called, has several outputs or no spatial dimensions;
                if the target is out of range; if inputs or outputs are not finite; if batch sizes
                do not match; or if an option is out of range.
        """
        with isolated():
            call = prepare(
                self.forward_func,
                inputs,
                target,
                additional_forward_args,
                masked=False,
                internal_batch_size=internal_batch_size,
                device_ids=self.device_ids,
            )
            layer = TargetLayer(self.layer, "", attribute_to_layer_input, reshape_transform)
            maps = call.by_parts(lambda part: self._maps(part, layer))
            maps = maps.relu() if relu_attributions else maps
            return like_inputs(inputs, call.for_each_input(maps))

    def _maps(self, call: Call, layer: TargetLayer) -> Tensor:
        """Asks the network; the place to override for methods that ask for something else."""
        gradients, activations = call.gradients_and_activations(layer)
        return self.formula(activations, gradients)

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
