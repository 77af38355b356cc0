"""Captum's methods of the gradient at the input, each reduced to one channel as its paper does."""

from __future__ import annotations

from typing import cast

import torch
from captum.attr import (
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr._around_captum import (
    each_sample,
    largest_magnitude,
    scores_of,
    seeded,
    signed_sum,
    sum_of_magnitudes,
)
from captum_groupcam.masking.checks import check_count

__all__ = [
    "gradient_shap",
    "input_x_gradient",
    "integrated_gradients",
    "saliency",
    "smooth_grad",
]


def saliency(model: Module, inputs: Tensor, target: TargetType) -> Tensor:
    """Gradients (Simonyan et al. 2014), the largest magnitude of the channels (section 3.1)."""
    return largest_magnitude(cast(Tensor, Saliency(model).attribute(inputs, target, abs=False)))


def input_x_gradient(model: Module, inputs: Tensor, target: TargetType) -> Tensor:
    """Input times gradient (Shrikumar et al. 2016), signed contributions summed over channels."""
    return signed_sum(cast(Tensor, InputXGradient(model).attribute(inputs, target=target)))


def integrated_gradients(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    n_steps: int = 50,
    internal_batch_size: int = 8,
) -> Tensor:
    """Integrated gradients (Sundararajan et al. 2017) from zero, magnitudes summed over channels.

    Reduced as the package ``saliency`` of its authors does to draw them.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_steps (int, optional): Steps of the path. Default: 50.
        internal_batch_size (int, optional): Largest number of inputs in one forward pass, at least
            N. Default: 8.

    Returns:
        Tensor: N x 1 x H x W.
    """
    attributions = IntegratedGradients(model).attribute(
        inputs,
        target=target,
        n_steps=n_steps,
        internal_batch_size=max(internal_batch_size, len(inputs)),
    )
    return sum_of_magnitudes(attributions)


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
                stdevs=_deviation(sample, noise_level),
                target=of_sample,
                abs=False,
            )
        return cast(Tensor, attributions)

    return sum_of_magnitudes(each_sample(inputs, target, explain))


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
        n_samples (int, optional): Noisy copies of each input. Default: 50.
        noise_level (float, optional): Standard deviation of the noise, as a share of the range of
            the input's values. Default: 0.15.
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
                    stdevs=_deviation(sample, noise_level),
                    target=of_sample,
                )
                total += cast(Tensor, mean).detach() * copies
        return total / n_samples

    return signed_sum(each_sample(inputs, target, explain))


def _deviation(sample: Tensor, noise_level: float) -> float:
    """The standard deviation of noise that is a share of the range of a sample's values."""
    return float(sample.max() - sample.min()) * noise_level
