"""CAM: class activation mapping (arXiv 1512.04150)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from captum.attr import LayerAttribution
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_groupcam import _captum
from captum_groupcam.attr.maps import weighted_sum
from captum_groupcam.masking.call import isolated, prepare
from captum_groupcam.masking.network import Network
from captum_groupcam.masking.targets import Target
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["CAM"]


class CAM(LayerAttribution):
    r"""Explains networks that end in global average pooling and one linear layer by its weights.

    .. math::

        M_c = \sum_k w_k^c A_k

    There the output is :math:`y_c = b_c + \mathrm{mean}_{ij} M_c`, which is checked for the samples
    that are explained. Like :class:`captum.attr.LayerGradCam` it gives maps at the resolution of
    the layer; bring them to that of the input with
    ``LayerAttribution.interpolate(attributions, inputs.shape[2:], "bilinear")``.

    Source: Zhou, Khosla, Lapedriza, Oliva and Torralba, "Learning Deep Features for Discriminative
    Localization", arXiv 1512.04150, eq. 2.

    Args:
        forward_func (Callable): The forward function of the model; returns what its linear layer
            gives.
        layer (torch.nn.Module): The layer that is pooled.
        device_ids (list of int, optional): Kept for Captum's interface. Default: None.
    """

    @_captum.log_usage
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        *,
        reshape_transform: ReshapeTransform | None = None,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """Computes the map of each sample, at the resolution of the layer.

        Args:
            inputs (Tensor or tuple of Tensor): N x C x spatial. For this and what is not explained
                here see :meth:`GroupCAM.attribute() <captum_groupcam.GroupCAM.attribute>`.
            target (int, Tensor or list, optional): The class that is explained. Default: None.
            additional_forward_args (Any, optional): Arguments of forward_func after the inputs.
                Default: None.
            attribute_to_layer_input (bool, optional): Whether the layer's input is meant, for
                example that of the pooling. Default: False.
            relu_attributions (bool, optional): Whether the sum's negative part is dropped; the
                paper keeps it. Default: False.
            reshape_transform (Callable, optional): Brings activations to N x K x spatial, for
                example the averaged tokens of a transformer. Default: None.
            internal_batch_size (int, optional): Largest number of samples in one forward pass.
                Default: None.

        Returns:
            *Tensor* of **attributions**: N x 1 x spatial at the resolution of the layer.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: If the network does not end in global average pooling of the layer and one
                linear layer; or as for
                :meth:`GroupCAM.attribute() <captum_groupcam.GroupCAM.attribute>`.

        Examples::

            >>> import torch
            >>> from torch import nn
            >>> _ = torch.manual_seed(0)
            >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
            >>> cam = CAM(nn.Sequential(features, head).eval(), features)
            >>> cam.attribute(torch.rand(2, 3, 16, 16), target=3).shape
            torch.Size([2, 1, 14, 14])
        """
        with isolated():
            inputs_, _, network = call = prepare(
                self.forward_func,
                inputs,
                target,
                additional_forward_args,
                baselines=0,
                score_func=lambda output: output,
                internal_batch_size=internal_batch_size,
                device_ids=self.device_ids,
            )
            activations = network.activations(self.layer, inputs_, attribute_to_layer_input)
            if reshape_transform is not None:
                activations = reshape_transform(activations)
            call.check_maps(activations)
            maps = weighted_sum(activations, _class_weights(network, inputs_, activations))
            return maps.relu() if relu_attributions else maps


class _Linear(NamedTuple):
    """One call of :func:`torch.nn.functional.linear`."""

    inputs: Tensor
    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> _Linear:  # noqa: A002
        """Binds the arguments by their names."""
        return cls(input, weight, bias)

    def parameters(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the dtype of another tensor."""
        return self.weight.to(like), None if self.bias is None else self.bias.to(like)


class _LinearCalls(TorchFunctionMode):
    """Takes down every call of a linear layer, whoever makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Linear] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.linear:
            self.calls.append(_Linear.of(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _class_weights(network: Network, inputs: tuple[Tensor, ...], activations: Tensor) -> Tensor:
    """The weights of each sample's class in the linear layer after the pooling: N x K."""
    network = replace(network, forward_func=_captum.eager(network.forward_func))
    target = network.target
    assert isinstance(target, Target)
    pooled = activations.flatten(2).mean(-1)

    def work(rows: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor]:
        with _captum.uncompiled(), _LinearCalls() as linear:
            outputs = network.scores(rows, samples)
        features = pooled[samples]
        for call in reversed(linear.calls):
            if call.inputs.shape == features.shape and _close(call.inputs, features, call):
                classes = F.linear(features, *call.parameters(features))
                if _close(target.select(classes, samples), outputs, call):
                    chosen = 0 if target.indices is None else target.indices[samples, 0]
                    return (call.weight[chosen].to(features).expand_as(features),)
        raise ValueError(
            "CAM explains networks that end in global average pooling of the layer and one linear "
            "layer, and return what that gives; here the output is not a linear function of the "
            "pooled activations. Choose the layer that is pooled, leave out what comes after the "
            "linear layer (softmax), or use Grad-CAM, which needs neither."
        )

    (weights,) = network.by_sample(inputs, work)
    return weights


def _close(found: Tensor, expected: Tensor, call: _Linear) -> bool:
    """Whether values are equal up to the rounding of the linear layer's precision."""
    tolerance = torch.finfo(call.inputs.dtype).eps ** 0.5
    error = (found.to(expected) - expected).norm()
    return bool(error <= tolerance * expected.norm())
