"""Score-CAM: Score-Weighted Visual Explanations (arXiv 1910.01279)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from captum.attr import LayerAttribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr._shared import Titled, shared_arguments
from captum_groupcam.attr.maps import weighted_sum
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
from captum_groupcam.masking.masks import LayerMasks
from captum_groupcam.masking.network import ScoreFunc, raw_score
from captum_groupcam.masking.smoothed import Smoothing, smoother
from captum_groupcam.networks.target_layer import LayerCall, TargetLayer
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["ScoreCAM"]


@shared_arguments
class ScoreCAM(Titled, LayerAttribution):
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
        weighting: Literal["softmax", "increase", "score"] = "softmax",
        score_func: ScoreFunc = raw_score,
        smoothing: Smoothing = "none",
        n_samples: int | None = None,
        noise_level: float = 2.0,
        seed: int = 0,
        reshape_transform: ReshapeTransform | None = None,
        layer_call: LayerCall = None,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
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
            weighting (str, optional): How scores become weights: "softmax" over the channels of a
                layer (the paper's algorithm); "increase", the increase of confidence S itself (the
                paper's definition); "score", without the baseline's score subtracted (the published
                code). Default: "softmax".
            score_func (Callable, optional): Turns the network's output (N x classes x ...) into the
                scores f. Default: :func:`~captum_groupcam.masking.network.raw_score`, the logit.
            smoothing (str, optional): What a channel's score is: "none", of its mask (Score-CAM);
                "noise", the mean over masks with noise (SS-CAM, arXiv 2006.14255); "integral", the
                mean over masks that grow step by step (IS-CAM, arXiv 2010.03023). Default: "none".
            n_samples (int, optional): Number of masks for each channel, hence of its forward
                passes, if smoothed. Default: None, 35 of SS-CAM and 10 of IS-CAM.
            noise_level (float, optional): Standard deviation of SS-CAM's noise on masks in [0, 1].
                Default: 2.0, as in the paper.
            seed (int, optional): Seed of the noise. Default: 0.
            reshape_transform (Callable, optional): {reshape_transform}
            layer_call (int or tuple of int, optional): {layer_call}
            internal_batch_size (int, optional): {internal_batch_size}
            show_progress (bool, optional): {show_progress}

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
            >>> _ = torch.manual_seed(0)
            >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
            >>> score_cam = ScoreCAM(nn.Sequential(features, head).eval(), features)
            >>> score_cam.attribute(torch.rand(2, 3, 16, 16), target=3).shape
            torch.Size([2, 1, 16, 16])
        """
        check_choice("weighting", weighting, "softmax", "increase", "score")
        smooth = smoother(smoothing, n_samples, noise_level, seed)
        with isolated():
            call = prepare(
                self.forward_func,
                inputs,
                target,
                additional_forward_args,
                baselines,
                default_baseline=0,
                score_func=score_func,
                internal_batch_size=internal_batch_size,
                device_ids=self.device_ids,
            )
            layer = TargetLayer(
                self.layer, "", attribute_to_layer_input, reshape_transform, layer_call
            )
            made: list[tuple[Tensor, tuple[Tensor, ...]]] = []

            def of_call(one: Call, layer: TargetLayer) -> tuple[Tensor, ...]:
                activations = one.activations(layer)
                masks = smooth(LayerMasks(activations))
                scores, queried = one.score_masks(masks, "Score-CAM", show_progress=show_progress)
                scores, queried = masks.mean(scores), queried[:, :: masks.n_variants]
                if weighting == "softmax":
                    # f_c(X_b) would cancel. Where no channel is queried, all weights are NaN.
                    weights = scores.masked_fill(~queried, -torch.inf).softmax(dim=1)
                    weights = torch.where(queried, weights, 0)
                elif weighting == "increase":
                    hidden = one.score_baselines()
                    weights = torch.where(queried, scores - hidden.unsqueeze(1), 0)
                else:
                    weights = scores

                # Scores have the precision of the inputs, which the network may have left.
                maps = weighted_sum(activations, weights.to(activations))
                attributions = one.upsample(maps.relu() if relu_attributions else maps)
                made.append((queried, attributions))
                return attributions

            attributions = call.for_all(layer, of_call)
        for queried, maps in made:
            warn_of_zero_maps(queried, maps)
        return like_inputs(inputs, attributions)
