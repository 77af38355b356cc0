"""What every call of ``attribute`` does: with masks made of a layer, and without any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

from captum.attr import Attribution, LayerAttribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr._shared import Titled, shared_arguments
from captum_groupcam.masking.baselines import Baseline, Baselines
from captum_groupcam.masking.call import (
    Call,
    TensorOrTuple,
    isolated,
    like_inputs,
    prepare,
    random_states,
    warn_of_chance,
    warn_of_zero_maps,
)
from captum_groupcam.masking.network import ScoreFunc, class_probability
from captum_groupcam.networks.target_layer import LayerCall, TargetLayer
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["MaskedLayer", "Unmasked", "check_one_call", "explained"]


def explained(
    forward_func: _captum.ForwardFunc,
    algorithm: Callable[[Call], tuple[Tensor, ...]],
    inputs: TensorOrTuple,
    target: _captum.TargetType,
    additional_forward_args: Any,
    **options: Any,
) -> TensorOrTuple:
    """What every ``attribute`` does around an algorithm, which gives a map for each input.

    The options are those of :func:`~captum_groupcam.masking.call.prepare`.
    """
    with isolated():
        call = prepare(forward_func, inputs, target, additional_forward_args, **options)
        before = random_states(call.inputs[0].device)
        maps = algorithm(call)
        warn_of_chance(call, before)
        return like_inputs(inputs, maps)


class _Result(Protocol):
    """What an algorithm gives: a map for each input, and which masks were queried (N x G)."""

    @property
    def maps(self) -> tuple[Tensor, ...]: ...

    @property
    def queried(self) -> Tensor: ...

    @property
    def unmoved(self) -> Tensor: ...


_AnyResult = TypeVar("_AnyResult", bound=_Result)


class MaskedLayer(Titled, LayerAttribution):
    """A method that is an algorithm of one call and a layer, at the resolution of the input."""

    default_baseline: ClassVar[Baseline] = None  #: What None stands for; None is the blurred input.
    #: What the maps of samples are of which no mask moved the score; "" is the sum of their masks.
    unmoved_maps: ClassVar[str] = ""

    @shared_arguments
    def _attribute(
        self,
        algorithm: Callable[..., _AnyResult],
        inputs: TensorOrTuple,
        target: _captum.TargetType,
        additional_forward_args: Any,
        attribute_to_layer_input: bool,
        *,
        baselines: Baselines = None,
        score_func: ScoreFunc = class_probability,
        reshape_transform: ReshapeTransform | None = None,
        layer_call: LayerCall = None,
        internal_batch_size: int | None = None,
        **options: Any,
    ) -> tuple[TensorOrTuple, _AnyResult]:
        """What every call does; gives the maps, and what the algorithm gave last.

        Args:
            algorithm (Callable): Gets the call, the layer and its options.
            inputs (Tensor or tuple of Tensor): {inputs}
            target (int, tuple, Tensor or list): {target}
            additional_forward_args (Any): {additional_forward_args}
            attribute_to_layer_input (bool): {attribute_to_layer_input}
            baselines (Tensor, float, callable, None or tuple of these, optional): {baselines}
                Default: None, the input blurred by
                :class:`~captum_groupcam.masking.baselines.GaussianBlur` (51 pixels, sigma 50).
            score_func (Callable, optional): {score_func} Default: softmax over dimension 1; an
                output without classes (N or N x 1) is its own score.
            reshape_transform (Callable, optional): {reshape_transform}
            layer_call (int or tuple of int, optional): {layer_call}
            internal_batch_size (int, optional): {internal_batch_size}
            **options (Any): Those of the algorithm.
        """
        results: list[_AnyResult] = []

        def of_call(call: Call, layer: TargetLayer) -> tuple[Tensor, ...]:
            result = algorithm(call, layer, **options)
            signed = options.get("relu_attributions") is False
            warn_of_zero_maps(
                result.queried,
                result.maps,
                unmoved=result.unmoved,
                unmoved_maps=self.unmoved_maps,
                signed=signed,
            )
            results.append(result)
            return result.maps

        layer = TargetLayer(self.layer, "", attribute_to_layer_input, reshape_transform, layer_call)
        attributions = explained(
            self.forward_func,
            lambda call: call.for_all(layer, of_call),
            inputs,
            target,
            additional_forward_args,
            baselines=baselines,
            default_baseline=self.default_baseline,
            score_func=score_func,
            internal_batch_size=internal_batch_size,
            device_ids=self.device_ids,
        )
        return attributions, results[-1]


def check_one_call(layer_call: LayerCall, what: str) -> None:
    """Checks that something is asked of one call of the layer, before the network is."""
    if isinstance(layer_call, tuple):
        raise ValueError(
            f"{what} are those of one call of the layer, got the calls {layer_call}. Ask for one, "
            "with the other inputs as additional_forward_args."
        )


class Unmasked(Titled, Attribution):
    """A method that is an algorithm of one call without layer, at the resolution of the input."""

    def _attribute(
        self,
        algorithm: Callable[[Call], tuple[Tensor, ...]],
        inputs: TensorOrTuple,
        target: _captum.TargetType,
        additional_forward_args: Any,
        internal_batch_size: int | None,
    ) -> TensorOrTuple:
        """What every call does."""

        def of_call(call: Call) -> tuple[Tensor, ...]:
            maps = algorithm(call)
            warn_of_zero_maps(None, maps)
            return maps

        return explained(
            self.forward_func,
            of_call,
            inputs,
            target,
            additional_forward_args,
            masked=False,
            internal_batch_size=internal_batch_size,
        )
