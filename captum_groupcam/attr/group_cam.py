"""Group-CAM: Group Score-Weighted Visual Explanations (arXiv 2103.13859)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypedDict, overload

import torch
from captum.attr import LayerAttribution
from torch import Tensor
from typing_extensions import Unpack

from captum_groupcam import _captum
from captum_groupcam.attr._shared import Titled, shared_arguments
from captum_groupcam.masking.baselines import Baselines
from captum_groupcam.masking.call import (
    Call,
    TensorOrTuple,
    isolated,
    like_inputs,
    prepare,
    warn_of_zero_maps,
)
from captum_groupcam.masking.checks import check_choice
from captum_groupcam.masking.groups import Grouping, find_grouping, group_maps, split_channels
from captum_groupcam.masking.masks import LayerMasks, check_percentile, denoise
from captum_groupcam.masking.network import ScoreFunc, class_probability
from captum_groupcam.networks.target_layer import LayerCall, TargetLayer
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["GroupCAM"]


class Merged(NamedTuple):
    """What the algorithm gives: the sum for each input, and what it is made of."""

    maps: tuple[Tensor, ...]
    scores: Tensor
    masks: LayerMasks
    queried: Tensor


def group_cam(
    call: Call,
    activations: Tensor,
    gradients: Tensor,
    *,
    n_groups: int,
    grouping: str | Grouping = "contiguous",
    denoise_percentile: float | None,
    denoise_at: Literal["layer", "input"],
    relu_scores: bool = False,
    merge_normalized: bool = True,
    show_progress: bool = False,
) -> Merged:
    """The algorithm (section 3 of the paper), with the options of :meth:`GroupCAM.attribute`."""
    # 1. Weights: w_k, the mean gradient of the class's output over a channel's positions.
    weights = gradients.flatten(2).mean(2)

    # 2. Split: M_l = ReLU(sum of w_k A_k over the group).
    groups = split_channels(activations, n_groups, grouping)
    maps = group_maps(activations, weights, groups, n_groups)

    # 3. Denoise: keep what exceeds the percentile of its map.
    if denoise_percentile is not None and denoise_at == "layer":
        maps = denoise(maps, denoise_percentile)

    # 4. Upsample and normalise to M'_l in [0, 1], when they are rendered.
    masks = LayerMasks(maps, denoise_percentile if denoise_at == "input" else None)

    # 5. Transform and 6. score: alpha_l = F_c(I * M'_l + B * (1 - M'_l)) - F_c(B).
    scores, queried = call.score_masks(masks, "Group-CAM", show_progress=show_progress)
    alphas = torch.where(queried, scores - call.score_baselines().unsqueeze(1), 0)
    if relu_scores:
        alphas = alphas.relu()

    # 7. Merge: the sum of alpha_l M'_l, whose ReLU is the map.
    merged = call.merge(masks, alphas, normalized=merge_normalized)
    return Merged(merged, alphas, masks, queried)


class GroupCAMOptions(TypedDict, total=False):
    """Keywords of :meth:`GroupCAM.attribute` that do not change what is returned."""

    baselines: Baselines
    n_groups: int
    grouping: str | Grouping
    gradient_free: bool
    denoise_percentile: float | None
    denoise_at: Literal["layer", "input"]
    score_func: ScoreFunc
    relu_scores: bool
    merge_normalized: bool
    reshape_transform: ReshapeTransform | None
    layer_call: LayerCall
    internal_batch_size: int | None
    show_progress: bool


@shared_arguments
class GroupCAM(Titled, LayerAttribution):
    r"""Explains a network's decision by the parts of the input that its own features point at.

    Group-CAM splits the activations of a layer into groups, turns each group into a mask, lets the
    network score the input seen through each mask, and merges the masks by their scores:

    .. math::

        L = \mathrm{ReLU}\Big(\sum_l \alpha_l M'_l\Big), \quad
        \alpha_l = F_c(I \cdot M'_l + B \cdot (1 - M'_l)) - F_c(B)

    It is a drop-in for :class:`captum.attr.LayerGradCam`, at the price of one forward pass for
    each group, and its maps have the resolution of the input.

    Source: Zhang, Rao and Yang, "Group-CAM: Group Score-Weighted Visual Explanations for Deep
    Convolutional Networks", arXiv 2103.13859.

    Args:
        forward_func (Callable): {forward_func}
        layer (torch.nn.Module): {layer} Its activations are grouped.
        device_ids (list of int, optional): {device_ids}
    """

    title = "Group-CAM"

    @overload
    def attribute(
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
    def attribute(
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
    def attribute(
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

    @_captum.log_usage
    @shared_arguments
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = True,
        *,
        baselines: Baselines = None,
        n_groups: int = 32,
        grouping: str | Grouping = "contiguous",
        gradient_free: bool = False,
        denoise_percentile: float | None = 70.0,
        denoise_at: Literal["layer", "input"] = "layer",
        score_func: ScoreFunc = class_probability,
        relu_scores: bool = False,
        merge_normalized: bool = True,
        reshape_transform: ReshapeTransform | None = None,
        layer_call: LayerCall = None,
        internal_batch_size: int | None = None,
        return_group_scores: bool = False,
        return_group_masks: bool = False,
        show_progress: bool = False,
    ) -> TensorOrTuple | tuple[TensorOrTuple, Tensor] | tuple[TensorOrTuple, Tensor, LayerMasks]:
        r"""Computes the map of each sample, at the resolution of the input.

        The defaults are the paper's. The variant that its authors published last is
        ``denoise_percentile=None, relu_scores=True, merge_normalized=False``.

        Args:
            inputs (Tensor or tuple of Tensor): {inputs}
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            attribute_to_layer_input (bool, optional): {attribute_to_layer_input}
            relu_attributions (bool, optional): {relu_attributions}
            baselines (Tensor, float, callable, None or tuple of these, optional): {baselines}
                Default: None, the input blurred by
                :class:`~captum_groupcam.masking.baselines.GaussianBlur` (51 pixels, sigma 50).
            n_groups (int, optional): Number of groups G, hence of forward passes; capped at the
                number of channels. Default: 32.
            grouping (str or Callable, optional): How channels are split: "contiguous" (paper),
                "k_means" or "agglomerative" (by where they are active), or a function, see
                :mod:`~captum_groupcam.masking.groups`. Default: "contiguous".
            gradient_free (bool, optional): Whether all channels weigh the same, so that the
                network needs no gradients. Default: False.
            denoise_percentile (float, optional): :math:`\theta`: positions of a group's map below
                this percentile are dropped; in [0, 100), None keeps all. Default: 70.0.
            denoise_at (str, optional): "layer" denoises at the resolution of the layer (paper),
                "input" after upsampling, which gives sharper masks. Default: "layer".
            score_func (Callable, optional): Turns the network's output (N x classes x ...) into the
                scores F. Default: softmax over dimension 1; an output without classes (N or
                N x 1) is its own score.
            relu_scores (bool, optional): Whether groups that lower the score are left out of the
                sum. Default: False.
            merge_normalized (bool, optional): Whether the merged masks are those that the network
                saw, normalised to [0, 1] (paper), or the maps before normalisation. Default: True.
            reshape_transform (Callable, optional): {reshape_transform}
            layer_call (int or tuple of int, optional): {layer_call}
            internal_batch_size (int, optional): {internal_batch_size}
            return_group_scores (bool, optional): Whether the scores :math:`\alpha_l` are returned
                too. Default: False.
            return_group_masks (bool, optional): Whether to return the masks, too, as
                :class:`~captum_groupcam.masking.masks.LayerMasks`: map, scores, masks.
                Default: False.
            show_progress (bool, optional): {show_progress}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**; with **group scores**, and
            **group masks**, a tuple:

            - **attributions** (*Tensor* or *tuple[Tensor, ...]*): N x 1 x spatial at the
              resolution of the input, float32 or wider. A tuple if inputs is one, with a zero
              (N x 1) for an input that is not masked.
            - **group scores** (*Tensor*): N x G, if ``return_group_scores`` or
              ``return_group_masks``. Zero for a group whose mask is flat.
            - **group masks** (*LayerMasks*): G masks a sample, if ``return_group_masks``.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: If the layer is never called, has several outputs or no spatial dimensions;
                if the target is out of range
                (:class:`~captum_groupcam.masking.targets.TargetError`); if inputs or outputs are
                not finite; if batch sizes do not match; or if an option is out of range.

        Examples::

            >>> import torch
            >>> from torch import nn
            >>> _ = torch.manual_seed(0)
            >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
            >>> explainer = GroupCAM(nn.Sequential(features, head).eval(), features)
            >>> attributions = explainer.attribute(torch.rand(2, 3, 16, 16), target=3, n_groups=4)
            >>> attributions.shape
            torch.Size([2, 1, 16, 16])
        """
        find_grouping(n_groups, grouping)
        check_percentile(denoise_percentile)
        check_choice("denoise_at", denoise_at, "layer", "input")
        if isinstance(layer_call, tuple) and (return_group_scores or return_group_masks):
            raise ValueError(
                "Group scores and masks are those of one call of the layer, got the calls "
                f"{layer_call}. Ask for one, with the other inputs as additional_forward_args."
            )
        with isolated():
            call = prepare(
                self.forward_func,
                inputs,
                target,
                additional_forward_args,
                baselines,
                score_func=score_func,
                internal_batch_size=internal_batch_size,
                device_ids=self.device_ids,
            )
            layer = TargetLayer(
                self.layer, "", attribute_to_layer_input, reshape_transform, layer_call
            )
            made: list[Merged] = []

            def of_call(one: Call, layer: TargetLayer) -> tuple[Tensor, ...]:
                if gradient_free:
                    activations = one.activations(layer)
                    gradients = torch.ones_like(activations)
                else:
                    gradients, activations = one.gradients_and_activations(layer)
                merged = group_cam(
                    one,
                    activations,
                    gradients,
                    n_groups=n_groups,
                    grouping=grouping,
                    denoise_percentile=denoise_percentile,
                    denoise_at=denoise_at,
                    relu_scores=relu_scores,
                    merge_normalized=merge_normalized,
                    show_progress=show_progress,
                )
                if relu_attributions:
                    merged = merged._replace(maps=tuple(m.relu() for m in merged.maps))
                made.append(merged)
                return merged.maps

            maps = call.for_all(layer, of_call)
        for merged in made:
            warn_of_zero_maps(merged.queried, merged.maps)
        attributions = like_inputs(inputs, maps)
        if return_group_masks:
            return attributions, merged.scores, merged.masks
        return (attributions, merged.scores) if return_group_scores else attributions
