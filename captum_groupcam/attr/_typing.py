"""What a type checker knows of ``attribute``: which options there are, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypedDict, cast, overload

import torch
from torch import Tensor
from typing_extensions import Unpack

from captum_groupcam import _captum
from captum_groupcam.masking.baselines import Baselines
from captum_groupcam.masking.call import TensorOrTuple
from captum_groupcam.masking.groups import Grouping
from captum_groupcam.masking.masks import LayerMasks
from captum_groupcam.masking.network import ScoreFunc
from captum_groupcam.masking.smoothed import Smoothing
from captum_groupcam.networks.target_layer import LayerCall
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = [
    "ConsensusAttribute",
    "ConsensusOptions",
    "GroupCAMAttribute",
    "GroupCAMOptions",
    "RISEOptions",
    "ScoreCAMOptions",
    "typed_consensus",
    "typed_group_cam",
]


class _LayerOptions(TypedDict, total=False):
    reshape_transform: ReshapeTransform | None
    layer_call: LayerCall
    internal_batch_size: int | None
    show_progress: bool


class _MaskingOptions(_LayerOptions, total=False):
    baselines: Baselines
    score_func: ScoreFunc


class GroupCAMOptions(_MaskingOptions, total=False):
    """Keywords of :meth:`GroupCAM.attribute` that do not change what is returned."""

    n_groups: int
    grouping: str | Grouping
    gradient_free: bool
    denoise_percentile: float | None
    denoise_at: Literal["layer", "input"]
    relu_scores: bool
    merge_normalized: bool


class ConsensusOptions(_MaskingOptions, total=False):
    """Keywords of :meth:`ConsensusGroupCAM.attribute` that do not change what is returned."""

    n_groups: int
    denoise_percentile: float | None
    flip: bool
    edge_radius: float
    gradient_sigma: float
    gradient_power: float
    shares: Sequence[float]


class ScoreCAMOptions(_LayerOptions, total=False):
    """Keywords of :meth:`ScoreCAM.attribute`, but for baselines and score."""

    weighting: Literal["softmax", "increase", "score"]
    smoothing: Smoothing
    n_samples: int | None
    noise_level: float
    seed: int


class RISEOptions(TypedDict, total=False):
    """The keywords of :func:`~captum_groupcam.attr.functional.rise`."""

    n_masks: int
    grid_size: int | Sequence[int]
    probability: float
    seed: int
    generator: torch.Generator | None
    show_progress: bool


class GroupCAMAttribute(Protocol):
    """:meth:`GroupCAM.attribute`: scores and masks come along if they are asked for."""

    @overload
    def __call__(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        relu_attributions: bool = ...,
        *,
        return_group_scores: Literal[False] = ...,
        return_group_masks: Literal[False] = ...,
        **options: Unpack[GroupCAMOptions],
    ) -> TensorOrTuple: ...

    @overload
    def __call__(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        relu_attributions: bool = ...,
        *,
        return_group_scores: Literal[True],
        return_group_masks: Literal[False] = ...,
        **options: Unpack[GroupCAMOptions],
    ) -> tuple[TensorOrTuple, Tensor]: ...

    @overload
    def __call__(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        relu_attributions: bool = ...,
        *,
        return_group_scores: bool = ...,
        return_group_masks: Literal[True],
        **options: Unpack[GroupCAMOptions],
    ) -> tuple[TensorOrTuple, Tensor, LayerMasks]: ...


class ConsensusAttribute(Protocol):
    """:meth:`ConsensusGroupCAM.attribute`: effects come along if they are asked for."""

    @overload
    def __call__(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        *,
        return_effects: Literal[False] = ...,
        **options: Unpack[ConsensusOptions],
    ) -> TensorOrTuple: ...

    @overload
    def __call__(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        *,
        return_effects: Literal[True],
        **options: Unpack[ConsensusOptions],
    ) -> tuple[TensorOrTuple, Tensor]: ...


def typed_group_cam(attribute: Callable[..., Any]) -> GroupCAMAttribute:
    """Types ``attribute``; the method stays as it is."""
    return cast(GroupCAMAttribute, attribute)


def typed_consensus(attribute: Callable[..., Any]) -> ConsensusAttribute:
    """Types ``attribute``; the method stays as it is."""
    return cast(ConsensusAttribute, attribute)
