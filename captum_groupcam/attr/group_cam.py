"""Group-CAM: Group Score-Weighted Visual Explanations (arXiv 2103.13859)."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, overload

from torch import Tensor
from typing_extensions import Unpack

from captum_groupcam import _captum
from captum_groupcam.attr._bases import MaskedLayer
from captum_groupcam.attr._shared import arguments_of, shared_arguments
from captum_groupcam.attr.functional.group_cam import GroupCAMResult, group_cam
from captum_groupcam.masking.baselines import Baselines
from captum_groupcam.masking.call import Call, TensorOrTuple
from captum_groupcam.masking.checks import check_choice
from captum_groupcam.masking.groups import Grouping, find_grouping
from captum_groupcam.masking.masks import LayerMasks, check_percentile
from captum_groupcam.masking.network import ScoreFunc, class_probability
from captum_groupcam.networks.target_layer import LayerCall, TargetLayer
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["GroupCAM"]


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
class GroupCAM(MaskedLayer):
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
    @arguments_of(group_cam)
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
            n_groups (int, optional): {n_groups}
            grouping (str or Callable, optional): {grouping}
            gradient_free (bool, optional): Whether all channels weigh the same, so that the
                network needs no gradients. Default: False.
            denoise_percentile (float, optional): {denoise_percentile}
            denoise_at (str, optional): {denoise_at}
            score_func (Callable, optional): {score_func} Default: softmax over dimension 1; an
                output without classes (N or N x 1) is its own score.
            relu_scores (bool, optional): {relu_scores}
            merge_normalized (bool, optional): {merge_normalized}
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

        def algorithm(call: Call, layer: TargetLayer) -> GroupCAMResult:
            if gradient_free:
                activations, gradients = call.activations(layer), None
            else:
                gradients, activations = call.gradients_and_activations(layer)
            return group_cam(
                call,
                activations,
                gradients,
                n_groups=n_groups,
                grouping=grouping,
                denoise_percentile=denoise_percentile,
                denoise_at=denoise_at,
                relu_scores=relu_scores,
                merge_normalized=merge_normalized,
                relu_attributions=relu_attributions,
                show_progress=show_progress,
            )

        attributions, result = self._attribute(
            algorithm,
            inputs,
            target,
            additional_forward_args,
            baselines,
            TargetLayer(self.layer, "", attribute_to_layer_input, reshape_transform, layer_call),
            score_func=score_func,
            internal_batch_size=internal_batch_size,
        )
        if return_group_masks:
            return attributions, result.scores, result.masks
        return (attributions, result.scores) if return_group_scores else attributions
