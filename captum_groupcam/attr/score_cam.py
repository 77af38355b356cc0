"""Score-CAM: Score-Weighted Visual Explanations (arXiv 1910.01279)."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from captum_groupcam import _captum
from captum_groupcam.attr._bases import MaskedLayer
from captum_groupcam.attr._shared import options_of, shared_arguments
from captum_groupcam.attr._typing import ScoreCAMOptions
from captum_groupcam.attr.functional.score_cam import score_cam
from captum_groupcam.masking.baselines import Baselines
from captum_groupcam.masking.call import TensorOrTuple
from captum_groupcam.masking.network import ScoreFunc, raw_score

__all__ = ["ScoreCAM"]


@shared_arguments
class ScoreCAM(MaskedLayer):
    r"""Weighs every channel of a layer by what the network says of the input seen through it.

    .. math::

        L = \mathrm{ReLU}\Big(\sum_k \alpha_k A_k\Big), \quad
        \alpha = \mathrm{softmax}(S), \quad S_k = f_c(X \cdot H_k + X_b \cdot (1 - H_k)) - f_c(X_b)

    where :math:`H_k` is the channel's activation :math:`A_k`, upsampled and normalised to [0, 1].
    Each channel costs one forward pass; a flat one carries no information and is left out.

    With ``smoothing="noise"`` it is SS-CAM, with ``smoothing="integral"`` IS-CAM.

    Source: Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
    Networks", arXiv 1910.01279, algorithm 1.

    Args:
        forward_func (Callable): {forward_func}
        layer (torch.nn.Module): {layer} Its channels are weighed.
        device_ids (list of int, optional): {device_ids}
    """

    title = "Score-CAM"
    default_baseline = 0

    @_captum.log_usage
    @options_of(score_cam, MaskedLayer._attribute)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = True,
        *,
        baselines: Baselines = None,
        score_func: ScoreFunc = raw_score,
        **options: Unpack[ScoreCAMOptions],
    ) -> TensorOrTuple:
        r"""Computes the map of each sample, at the resolution of the input.

        The defaults are the paper's. The code that its authors published is
        ``weighting="score", score_func=class_probability`` (with
        :func:`~captum_groupcam.masking.network.class_probability`).

        Args:
            inputs (Tensor or tuple of Tensor): {inputs}
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            attribute_to_layer_input (bool, optional): {attribute_to_layer_input}
            relu_attributions (bool, optional): {relu_attributions}
            baselines (Tensor, float, callable, None or tuple of these, optional): {baselines}
                Default: None, zero, as in Captum and in the published code. It is zero in the
                values that the network takes, so mean grey rather than black for images that were
                normalised.
            score_func (Callable, optional): {score_func}
                Default: :func:`~captum_groupcam.masking.network.raw_score`, the logit.
            **options: {options}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x spatial at the resolution
            of the input. A tuple if inputs is one, with a zero (N x 1) for an input that is not
            masked.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: As for :meth:`GroupCAM.attribute() <captum_groupcam.GroupCAM.attribute>`.

        Examples::

            >>> import torch
            >>> from torch import nn
            >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
            >>> score_cam = ScoreCAM(nn.Sequential(features, head).eval(), features)
            >>> score_cam.attribute(torch.rand(2, 3, 16, 16), target=3).shape
            torch.Size([2, 1, 16, 16])
        """
        attributions, _ = self._attribute(
            score_cam,
            inputs,
            target,
            additional_forward_args,
            attribute_to_layer_input,
            relu_attributions=relu_attributions,
            baselines=baselines,
            score_func=score_func,
            **options,
        )
        return attributions
