"""Captum's GradientSHAP, summed over channels."""

from __future__ import annotations

from typing import cast

import torch
from captum.attr import GradientShap
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr._around_captum import (
    deviation_of,
    each_sample,
    scores_of,
    seeded,
    signed_sum,
)
from captum_groupcam.attr._shared import arguments_of
from captum_groupcam.attr.smooth_grad import smooth_grad
from captum_groupcam.masking.checks import check_count

__all__ = ["gradient_shap"]


@arguments_of(smooth_grad)
def gradient_shap(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    n_samples: int = 50,
    noise_level: float = 0.15,
    seed: int = 0,
    internal_batch_size: int = 8,
) -> Tensor:
    """GradientSHAP (Lundberg and Lee 2017): expected gradients between noisy copies and zero.

    Each copy is taken at a random place on the way from the baseline, zero, which is the mean
    colour where inputs are normalised. SHAP values add up, so the signed ones are summed over
    channels. Every sample gets the same draws, whichever samples stand beside it.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_samples (int, optional): {n_samples}
        noise_level (float, optional): {noise_level}
        seed (int, optional): Seed of noise and places. Default: 0.
        internal_batch_size (int, optional): Copies in one forward pass; other copies are drawn if
            it changes. Default: 8.

    Returns:
        Tensor: N x 1 x H x W.
    """
    check_count("n_samples", n_samples)
    check_count("internal_batch_size", internal_batch_size)
    method = GradientShap(scores_of(model, inputs.dtype))

    def explain(sample: Tensor, of_sample: TargetType) -> Tensor:
        total = torch.zeros_like(sample)
        with seeded(seed, sample.device):
            for done in range(0, n_samples, internal_batch_size):
                copies = min(internal_batch_size, n_samples - done)
                mean = method.attribute(
                    sample,
                    baselines=torch.zeros_like(sample),
                    n_samples=copies,
                    stdevs=deviation_of(sample, noise_level),
                    target=of_sample,
                )
                total += cast(Tensor, mean).detach() * copies
        return total / n_samples

    return signed_sum(each_sample(inputs, target, explain))
