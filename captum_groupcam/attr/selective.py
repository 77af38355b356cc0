"""Group-CAM whose map the network selects among refined ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, TypedDict, overload

from torch import Tensor
from typing_extensions import Unpack

from captum_groupcam import _captum
from captum_groupcam.attr._bases import MaskedLayer
from captum_groupcam.attr._shared import arguments_of, shared_arguments
from captum_groupcam.attr.functional.selective import selective_group_cam
from captum_groupcam.masking.baselines import Baselines
from captum_groupcam.masking.call import TensorOrTuple
from captum_groupcam.masking.checks import check_between
from captum_groupcam.masking.groups import find_grouping
from captum_groupcam.masking.masks import check_percentile
from captum_groupcam.masking.network import ScoreFunc, class_probability
from captum_groupcam.networks.target_layer import LayerCall, TargetLayer
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["SelectiveGroupCAM"]


class SelectiveOptions(TypedDict, total=False):
    """Keywords of :meth:`SelectiveGroupCAM.attribute` that do not change what is returned."""

    baselines: Baselines
    n_groups: int
    denoise_percentile: float | None
    edge_radius: float
    gradient_sigma: float
    gradient_power: float
    shares: Sequence[float]
    score_func: ScoreFunc
    reshape_transform: ReshapeTransform | None
    layer_call: LayerCall
    internal_batch_size: int | None
    show_progress: bool


@shared_arguments
class SelectiveGroupCAM(MaskedLayer):
    r"""Refines Group-CAM and Grad-CAM, and lets the network select the best map of each sample.

    1. Two maps of the layer: Grad-CAM, and Group-CAM of fewer groups with a tenth of Grad-CAM
       added. Which of them is better differs between images more than their means do.
    2. Both follow the edges of the input, by a guided filter.
    3. Each also comes multiplied by :math:`D^{0.8}`, where D are the magnitudes of the input's
       gradient, blurred: which pixels of a part matter.
    4. The network is asked how much the positions that a map ranks first matter, alone and missing:

       .. math::

           e_m = \frac{1}{|S|} \sum_{s \in S} F_c(I \cdot T_{ms} + B \cdot (1 - T_{ms}))
               - F_c(I \cdot (1 - T_{ms}) + B \cdot T_{ms})

       where :math:`T_{ms}` is one at the share s of positions that map m ranks first.
    5. The map with the largest :math:`e_m` is the result.

    With its defaults it takes no more forward passes than :class:`~captum_groupcam.GroupCAM`: one
    with gradients at the layer, one with gradients at the input, which costs as much as three, 13
    groups, the baseline, and 4 maps of 2 shares shown and hidden. Measured in
    :doc:`/research/a-better-map`. Step 4 asks what deletion and insertion ask, so they are not all
    to judge it by.

    Sources: Group-CAM (arXiv 2103.13859), Grad-CAM (arXiv 1610.02391), gradients of the input
    (arXiv 1312.6034); He, Sun and Tang, "Guided Image Filtering" (2010); deletion and insertion
    (arXiv 1806.07421, section 4.1).

    Args:
        forward_func (Callable): {forward_func}
        layer (torch.nn.Module): {layer} Its activations are grouped.
        device_ids (list of int, optional): {device_ids}
    """

    title = "Selective Group-CAM"

    @overload
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        *,
        return_effects: Literal[False] = ...,
        **options: Unpack[SelectiveOptions],
    ) -> TensorOrTuple: ...

    @overload
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        *,
        return_effects: Literal[True],
        **options: Unpack[SelectiveOptions],
    ) -> tuple[TensorOrTuple, Tensor]: ...

    @_captum.log_usage
    @arguments_of(selective_group_cam)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        *,
        baselines: Baselines = None,
        n_groups: int = 13,
        denoise_percentile: float | None = 70.0,
        edge_radius: float = 8 / 224,
        gradient_sigma: float = 6 / 224,
        gradient_power: float = 0.8,
        shares: Sequence[float] = (0.15, 0.45),
        score_func: ScoreFunc = class_probability,
        reshape_transform: ReshapeTransform | None = None,
        layer_call: LayerCall = None,
        internal_batch_size: int | None = None,
        return_effects: bool = False,
        show_progress: bool = False,
    ) -> TensorOrTuple | tuple[TensorOrTuple, Tensor]:
        r"""Computes the map of each sample, at the resolution of the input.

        Args:
            inputs (Tensor or tuple of Tensor): N x C x spatial, with one to three spatial
                dimensions. Of a tuple exactly one has them; others reach the network as they are.
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            attribute_to_layer_input (bool, optional): {attribute_to_layer_input}
            baselines (Tensor, float, callable, None or tuple of these, optional): {baselines}
                Default: None, the input blurred as in :class:`~captum_groupcam.GroupCAM`.
            n_groups (int, optional): {n_groups}
            denoise_percentile (float, optional): {denoise_percentile}
            edge_radius (float, optional): {edge_radius}
            gradient_sigma (float, optional): {gradient_sigma}
            gradient_power (float, optional): {gradient_power}
            shares (sequence of float, optional): {shares}
            score_func (Callable, optional): {score_func} Default: softmax over dimension 1.
            reshape_transform (Callable, optional): {reshape_transform}
            layer_call (int or tuple of int, optional): {layer_call}
            internal_batch_size (int, optional): {internal_batch_size}
            return_effects (bool, optional): Whether the effects :math:`e_m` are returned too.
                Default: False.
            show_progress (bool, optional): {show_progress}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**; with **effects**, a tuple:

            - **attributions** (*Tensor* or *tuple[Tensor, ...]*): N x 1 x spatial at the resolution
              of the input, not negative. A tuple if inputs is one, with a zero (N x 1) for an input
              that is not masked.
            - **effects** (*Tensor*): N x 4, if ``return_effects``: of Grad-CAM and Group-CAM with
              the gradient, then without.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: If several inputs have spatial dimensions, if the output has no gradient
                with respect to the input, if an option is out of range, or as for
                :meth:`GroupCAM.attribute() <captum_groupcam.GroupCAM.attribute>`.

        Examples::

            >>> import torch
            >>> from torch import nn
            >>> from captum_groupcam.attr.selective import SelectiveGroupCAM
            >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
            >>> selective = SelectiveGroupCAM(nn.Sequential(features, head).eval(), features)
            >>> selective.attribute(torch.rand(2, 3, 16, 16), target=3).shape
            torch.Size([2, 1, 16, 16])
        """
        find_grouping(n_groups, "contiguous")
        check_percentile(denoise_percentile)
        of_side = " It is a share of the input's shorter side."
        check_between("edge_radius", edge_radius, 0, 1, ends="[)", hint=of_side)
        check_between("gradient_sigma", gradient_sigma, 0, 1, ends="(]", hint=of_side)
        check_between("gradient_power", gradient_power, 0, float("inf"), ends="()")
        if not isinstance(shares, (list, tuple)):
            raise TypeError(f"shares must be a tuple of numbers, got {shares!r}.")
        if not shares:
            raise ValueError("shares needs at least one number.")
        for share in shares:
            check_between("each of shares", share, 0, 1, ends="()")
        if isinstance(layer_call, tuple) and return_effects:
            raise ValueError(
                f"Effects are those of one call of the layer, got the calls {layer_call}. Ask for "
                "one, with the other inputs as additional_forward_args."
            )
        attributions, result = self._attribute(
            partial(
                selective_group_cam,
                n_groups=n_groups,
                denoise_percentile=denoise_percentile,
                edge_radius=edge_radius,
                gradient_sigma=gradient_sigma,
                gradient_power=gradient_power,
                shares=shares,
                show_progress=show_progress,
            ),
            inputs,
            target,
            additional_forward_args,
            baselines,
            TargetLayer(self.layer, "", attribute_to_layer_input, reshape_transform, layer_call),
            score_func=score_func,
            internal_batch_size=internal_batch_size,
        )
        return (attributions, result.effects) if return_effects else attributions
