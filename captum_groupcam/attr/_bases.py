"""What every call of ``attribute`` does: with masks made of a layer, and without any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from captum.attr import Attribution, LayerAttribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr._shared import Titled
from captum_groupcam.masking.baselines import Baseline, Baselines
from captum_groupcam.masking.call import (
    Call,
    TensorOrTuple,
    isolated,
    like_inputs,
    prepare,
    warn_of_zero_maps,
)
from captum_groupcam.masking.network import ScoreFunc
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["MaskedLayer", "Unmasked", "explained"]


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
        return like_inputs(inputs, algorithm(call))


class _Result(Protocol):
    """What an algorithm gives: a map for each input, and which masks were queried (N x G)."""

    @property
    def maps(self) -> tuple[Tensor, ...]: ...

    @property
    def queried(self) -> Tensor: ...


_AnyResult = TypeVar("_AnyResult", bound=_Result)


class MaskedLayer(Titled, LayerAttribution):
    """A method that is an algorithm of one call and a layer, at the resolution of the input."""

    def _attribute(
        self,
        algorithm: Callable[[Call, TargetLayer], _AnyResult],
        inputs: TensorOrTuple,
        target: _captum.TargetType,
        additional_forward_args: Any,
        baselines: Baselines,
        layer: TargetLayer,
        *,
        score_func: ScoreFunc,
        internal_batch_size: int | None,
        default_baseline: Baseline = None,
    ) -> tuple[TensorOrTuple, _AnyResult]:
        """What every call does; gives the maps, and what the algorithm gave last."""
        results: list[_AnyResult] = []

        def of_call(call: Call, layer: TargetLayer) -> tuple[Tensor, ...]:
            result = algorithm(call, layer)
            warn_of_zero_maps(result.queried, result.maps)
            results.append(result)
            return result.maps

        attributions = explained(
            self.forward_func,
            lambda call: call.for_all(layer, of_call),
            inputs,
            target,
            additional_forward_args,
            baselines=baselines,
            default_baseline=default_baseline,
            score_func=score_func,
            internal_batch_size=internal_batch_size,
            device_ids=self.device_ids,
        )
        return attributions, results[-1]


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
        return explained(
            self.forward_func,
            algorithm,
            inputs,
            target,
            additional_forward_args,
            masked=False,
            internal_batch_size=internal_batch_size,
        )
