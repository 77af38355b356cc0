"""The algorithm of Score-CAM (arXiv 1910.01279, algorithm 1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from captum_groupcam.attr._shared import shared_arguments
from captum_groupcam.attr.functional.results import QueriedMaps
from captum_groupcam.attr.maps import weighted_sum
from captum_groupcam.masking.call import Call, all_alike
from captum_groupcam.masking.checks import check_choice
from captum_groupcam.masking.masks import LayerMasks
from captum_groupcam.masking.smoothed import Smoothing, smoother
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["score_cam"]


@shared_arguments
def score_cam(
    call: Call,
    layer: TargetLayer,
    *,
    weighting: Literal["softmax", "increase", "score"] = "softmax",
    smoothing: Smoothing = "none",
    n_samples: int | None = None,
    noise_level: float = 2.0,
    seed: int = 0,
    relu_attributions: bool = True,
    show_progress: bool = False,
) -> QueriedMaps:
    """Weighs every channel of a layer by what the network says of the input seen through it.

    Source: Wang et al., arXiv 1910.01279, algorithm 1.

    Args:
        call (Call): Inputs X, baselines :math:`X_b`, and the network that gives the scores f.
        layer (TargetLayer): The layer whose channels :math:`A_k` are weighed.
        weighting (str, optional): How scores become weights: "softmax" over the channels of a
            layer (the paper's algorithm); "increase", the increase of confidence S itself (the
            paper's definition); "score", without the baseline's score subtracted (the published
            code). Default: "softmax".
        smoothing (str, optional): What a channel's score is: "none", of its mask (Score-CAM);
            "noise", the mean over masks with noise (SS-CAM, arXiv 2006.14255); "integral", the
            mean over masks that grow step by step (IS-CAM, arXiv 2010.03023). Default: "none".
        n_samples (int, optional): Number of masks for each channel, hence of its forward
            passes, if smoothed. Default: None, 35 of SS-CAM and 10 of IS-CAM.
        noise_level (float, optional): Standard deviation of SS-CAM's noise on masks in [0, 1].
            Default: 2.0, as in the paper.
        seed (int, optional): Seed of the noise. Default: 0.
        relu_attributions (bool, optional): {relu_attributions}
        show_progress (bool, optional): {show_progress}

    Returns:
        QueriedMaps: Maps, N x 1 x spatial at the resolution of each input.

    Examples::

        >>> from captum_groupcam.masking.call import prepare
        >>> features = torch.nn.Conv2d(3, 8, 3)
        >>> network = torch.nn.Sequential(features, torch.nn.Flatten(), torch.nn.Linear(288, 5))
        >>> call = prepare(network, torch.rand(2, 3, 8, 8), 3, None, baselines=0)
        >>> score_cam(call, TargetLayer(features)).maps[0].shape
        torch.Size([2, 1, 8, 8])
    """
    check_choice("weighting", weighting, "softmax", "increase", "score")
    smooth = smoother(smoothing, n_samples, noise_level, seed)

    # Masks H_k: the channels, upsampled and normalised when they are rendered.
    activations = call.activations(layer, checks_order=True)
    masks = smooth(LayerMasks(activations))

    # Scores: f_c(X * H_k + X_b * (1 - H_k)), the mean over the variants of a mask.
    scores, queried = call.score_masks(masks, "Score-CAM", show_progress=show_progress)
    scores, queried = masks.mean(scores), queried[:, :: masks.n_variants]

    # Weights: alpha, from S_k, which is the score less that of the baseline.
    if weighting == "softmax":
        # f_c(X_b) would cancel. Where no channel is queried, all weights are NaN.
        weights = scores.masked_fill(~queried, -torch.inf).softmax(dim=1)
        weights = torch.where(queried, weights, 0)
    elif weighting == "increase":
        weights = torch.where(queried, scores - call.score_baselines().unsqueeze(1), 0)
    else:
        weights = scores

    # The map: ReLU(sum of alpha_k A_k), upsampled.
    # Scores have the precision of the inputs, which the network may have left.
    maps = weighted_sum(activations, weights.to(activations))
    maps = maps.relu() if relu_attributions else maps
    unmoved = all_alike(scores, queried) & _differ(activations, queried)
    return QueriedMaps(call.upsample(maps), queried, unmoved)


def _differ(activations: Tensor, queried: Tensor) -> Tensor:
    """Whether a sample has several masks, other than channels that are all alike: N booleans."""
    flat = activations.flatten(2)
    low, high = flat.aminmax(dim=2, keepdim=True)
    masks = (flat - low) / (high - low)
    asked = queried.unsqueeze(-1)
    least, most = masks.masked_fill(~asked, 1).amin(1), masks.masked_fill(~asked, 0).amax(1)
    return (most - least > 1e-3).any(1)
