"""Group-CAM: Group Score-Weighted Visual Explanations (arXiv 2103.13859)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from captum_groupcam import _captum
from captum_groupcam.attr._bases import MaskedLayer, check_one_call
from captum_groupcam.attr._shared import options_of, shared_arguments
from captum_groupcam.attr._typing import GroupCAMOptions, typed_group_cam
from captum_groupcam.attr.functional.group_cam import group_cam
from captum_groupcam.masking.call import TensorOrTuple
from captum_groupcam.masking.masks import LayerMasks

__all__ = ["GroupCAM"]


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

    @typed_group_cam
    @_captum.log_usage
    @options_of(group_cam, MaskedLayer._attribute)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = True,
        *,
        return_group_scores: bool = False,
        return_group_masks: bool = False,
        **options: Unpack[GroupCAMOptions],
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
            return_group_scores (bool, optional): Whether the scores :math:`\alpha_l` are returned
                too. Default: False.
            return_group_masks (bool, optional): Whether scores and masks are returned too, these
                as :class:`~captum_groupcam.masking.masks.LayerMasks`. Default: False.
            **options: {options}

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
            >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
            >>> explainer = GroupCAM(nn.Sequential(features, head).eval(), features)
            >>> explainer.attribute(torch.rand(2, 3, 16, 16), target=3, n_groups=4).shape
            torch.Size([2, 1, 16, 16])
        """
        if return_group_scores or return_group_masks:
            check_one_call(options.get("layer_call"), "Group scores and masks")
        attributions, result = self._attribute(
            group_cam,
            inputs,
            target,
            additional_forward_args,
            attribute_to_layer_input,
            relu_attributions=relu_attributions,
            **options,
        )
        if return_group_masks:
            return attributions, result.scores, result.masks
        return (attributions, result.scores) if return_group_scores else attributions
