"""Score-CAM: Score-Weighted Visual Explanations (arXiv 1910.01279)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from captum.attr import LayerAttribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr.maps import weighted_sum
from captum_groupcam.masking.baselines import Baselines
from captum_groupcam.masking.call import isolated, prepare, warn_of_zero_maps
from captum_groupcam.masking.masks import LayerMasks, upsample
from captum_groupcam.masking.network import ScoreFunc, raw_score
from captum_groupcam.masking.queries import score_masks, score_samples
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["ScoreCAM"]


class ScoreCAM(LayerAttribution):
    r"""Weighs every channel of a layer by what the network says of the input seen through it.

    .. math::

        L = \mathrm{ReLU}\Big(\sum_k \alpha_k A_k\Big), \quad
        \alpha = \mathrm{softmax}(S), \quad S_k = f_c(X \cdot H_k + X_b \cdot (1 - H_k)) - f_c(X_b)

    where :math:`H_k` is the channel's activation :math:`A_k`, upsampled and normalised to [0, 1].
    Each channel costs one forward pass; a flat one carries no information and is left out.

    Source: Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
    Networks", arXiv 1910.01279, algorithm 1.

    Args:
        forward_func (Callable): The forward function of the model or any modification of it.
        layer (torch.nn.Module): The layer whose channels are weighed, usually the last one with
            spatial dimensions.
        device_ids (list of int, optional): Device IDs, necessary only if forward_func applies a
            DataParallel model; not if it is one. Default: None.
    """

    @_captum.log_usage
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = True,
        *,
        baselines: Baselines = 0,
        weighting: Literal["softmax", "increase", "score"] = "softmax",
        score_func: ScoreFunc = raw_score,
        reshape_transform: ReshapeTransform | None = None,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> Any:
        r"""Computes the map of each sample, at the resolution of the input.

        The defaults are the paper's. The code that its authors published is
        ``weighting="score", score_func=class_probability`` (with
        :func:`~captum_groupcam.masking.network.class_probability`).

        Args:
            inputs (Tensor or tuple of Tensor): N x C x spatial, masked as in
                :meth:`GroupCAM.attribute() <captum_groupcam.GroupCAM.attribute>`, which describes
                the arguments that are not explained here.
            target (int, tuple, Tensor or list, optional): The output that is explained.
                Default: None.
            additional_forward_args (Any, optional): Arguments of forward_func after the inputs.
                Default: None.
            attribute_to_layer_input (bool, optional): Whether the layer's input is meant.
                Default: False.
            relu_attributions (bool, optional): Whether the sum's negative part is dropped, as in
                the paper. Default: True.
            baselines (Tensor, float, callable, None or tuple of these, optional): What is seen
                where a mask hides the input, X_b. Default: 0, as Captum's default and the published
                code: zero in the values that the network takes, so mean grey rather than black for
                images that were normalised. None is Group-CAM's blur.
            weighting (str, optional): How scores become weights: "softmax" over the channels of a
                layer (the paper's algorithm); "increase", the increase of confidence S itself (the
                paper's definition); "score", without the baseline's score subtracted (the published
                code). Default: "softmax".
            score_func (Callable, optional): Turns the network's output into the scores f.
                Default: :func:`~captum_groupcam.masking.network.raw_score`, the logit.
            reshape_transform (Callable, optional): Brings activations to N x K x spatial.
                Default: None.
            internal_batch_size (int, optional): Largest number of inputs in one forward pass.
                Default: None.
            show_progress (bool, optional): Whether to show a progress bar. Default: False.

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
        if weighting not in ("softmax", "increase", "score"):
            raise ValueError(
                f"weighting must be 'softmax', 'increase' or 'score', got {weighting!r}."
            )
        with isolated():
            inputs_, baselines_, network = call = prepare(
                self.forward_func,
                inputs,
                target,
                additional_forward_args,
                baselines,
                score_func=score_func,
                internal_batch_size=internal_batch_size,
                device_ids=self.device_ids,
            )
            activations = call.activations(
                TargetLayer(self.layer, "", attribute_to_layer_input, reshape_transform)
            )

            scores, queried = score_masks(
                network,
                inputs_,
                baselines_,
                LayerMasks(activations),
                description="Score-CAM",
                show_progress=show_progress,
            )
            if weighting == "softmax":
                # f_c(X_b) would cancel. Where no channel is queried, all weights are NaN.
                weights = scores.masked_fill(~queried, -torch.inf).softmax(dim=1)
                weights = torch.where(queried, weights, 0)
            elif weighting == "increase":
                hidden = score_samples(network, call.hidden)
                weights = torch.where(queried, scores - hidden.unsqueeze(1), 0)
            else:
                weights = scores

            # Scores have the precision of the inputs, which the network may have left.
            maps = weighted_sum(activations, weights.to(activations))
            if relu_attributions:
                maps = maps.relu()
            attributions = tuple(
                maps.new_zeros(len(maps), 1)
                if baseline is None
                else upsample(maps, whole.shape[2:])
                for whole, baseline in zip(inputs_, baselines_, strict=True)
            )
        warn_of_zero_maps(queried)
        return attributions if isinstance(inputs, tuple) else attributions[0]
