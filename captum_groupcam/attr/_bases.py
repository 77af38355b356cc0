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

__all__ = ["MaskedLayer", "Unmasked"]


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
        default_baseline: Baseline = None,
        score_func: ScoreFunc,
        internal_batch_size: int | None,
    ) -> tuple[TensorOrTuple, _AnyResult]:
        """What every call does; gives the maps, and what the algorithm gave last."""
        results: list[_AnyResult] = []

        def of_call(call: Call, layer: TargetLayer) -> tuple[Tensor, ...]:
            results.append(algorithm(call, layer))
            return results[-1].maps

        with isolated():
            call = prepare(
                self.forward_func,
                inputs,
                target,
                additional_forward_args,
                baselines,
                default_baseline=default_baseline,
                score_func=score_func,
                internal_batch_size=internal_batch_size,
                device_ids=self.device_ids,
            )
            maps = call.for_all(layer, of_call)
        for result in results:
            warn_of_zero_maps(result.queried, result.maps)
        return like_inputs(inputs, maps), results[-1]


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
        with isolated():
            call = prepare(
                self.forward_func,
                inputs,
                target,
                additional_forward_args,
                masked=False,
                internal_batch_size=internal_batch_size,
            )
            return like_inputs(inputs, algorithm(call))
