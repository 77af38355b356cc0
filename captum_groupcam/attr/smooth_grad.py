"""SmoothGrad: Captum's gradients in its NoiseTunnel, reduced to one channel."""

from __future__ import annotations

from typing import cast

from captum.attr import NoiseTunnel, Saliency
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr._around_captum import (
    deviation_of,
    each_sample,
    scores_of,
    seeded,
    sum_of_magnitudes,
)

__all__ = ["smooth_grad"]


def smooth_grad(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    n_samples: int = 50,
    noise_level: float = 0.15,
    seed: int = 0,
    internal_batch_size: int = 8,
) -> Tensor:
    """SmoothGrad (Smilkov et al. 2017): gradients averaged over noisy copies of each input.

    The noise's standard deviation is a share of the range of the input's values, 10 % to 20 % in
    the paper. Magnitudes are summed over channels as the package ``saliency`` of the authors does
    to draw them. Every sample gets the same noise, whichever samples stand beside it.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_samples (int, optional): Noisy copies of each input. Default: 50.
        noise_level (float, optional): Standard deviation of the noise, as a share of the range of
            the input's values. Default: 0.15.
        seed (int, optional): Seed of the noise. Default: 0.
        internal_batch_size (int, optional): Copies in one forward pass. Default: 8.

    Returns:
        Tensor: N x 1 x H x W.
    """
    method = NoiseTunnel(Saliency(scores_of(model, inputs.dtype)))

    def explain(sample: Tensor, of_sample: TargetType) -> Tensor:
        with seeded(seed, sample.device):
            attributions = method.attribute(
                sample,
                nt_type="smoothgrad",
                nt_samples=n_samples,
                nt_samples_batch_size=min(internal_batch_size, n_samples),
                stdevs=deviation_of(sample, noise_level),
                target=of_sample,
                abs=False,
            )
        return cast(Tensor, attributions)

    return sum_of_magnitudes(each_sample(inputs, target, explain))
