"""Group-CAM as a loop that is written from the equations."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from captum_groupcam import GroupCAM

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def softmax(logits):
    e = np.exp(logits - logits.max())
    return e / e.sum()


def naive_group_cam(
    network,
    image,
    baseline,
    target,
    n_groups,
    *,
    groups=None,
    gradient_free=False,
    theta=70.0,
    theta_at="layer",
    score=softmax,
    relu_scores=False,
    merge_normalized=True,
):
    """The signed map and the alphas of one sample, one group at a time."""

    def score_of(seen):
        with torch.no_grad():
            return score(network(torch.from_numpy(seen)[None])[0].numpy())[target]

    activations = network.features(image[None]).detach().requires_grad_()
    (gradients,) = torch.autograd.grad(network.head(activations)[0, target], activations)
    activations, gradients = activations[0].detach().numpy(), gradients[0].numpy()
    image, baseline = image.numpy(), baseline.numpy()
    channels = len(activations)
    weights = np.ones(channels) if gradient_free else [g.mean() for g in gradients]
    if groups is None:
        groups = np.array_split(np.arange(channels), min(n_groups, channels))

    merged, alphas = np.zeros(image.shape[1:]), []
    for group in groups:
        mask = np.zeros(activations.shape[1:], activations.dtype)
        for k in group:
            mask = mask + weights[k] * activations[k]
        mask = np.maximum(mask, 0).astype(activations.dtype)
        if theta is not None and theta_at == "layer":
            mask = np.where(mask > np.percentile(mask, theta), mask, 0)
        if (
            mask.max() == mask.min()
        ):  # before rounding makes an interpolated constant look like more
            alphas.append(0.0)
            continue
        mask = F.interpolate(
            torch.from_numpy(mask)[None, None],
            size=image.shape[1:],
            mode=MODES[image.ndim - 1],
            align_corners=False,
        )[0, 0].numpy()
        if theta is not None and theta_at == "input":
            mask = np.where(mask > np.percentile(mask, theta), mask, 0)
        if mask.max() == mask.min():
            alphas.append(0.0)
            continue
        normalized = (mask - mask.min()) / (mask.max() - mask.min())
        seen = image * normalized + baseline * (1 - normalized)
        alpha = score_of(seen) - score_of(baseline)
        alpha = max(alpha, 0) if relu_scores else alpha
        alphas.append(alpha)
        merged += alpha * (normalized if merge_normalized else mask)
    return merged[None], np.array(alphas)


def assert_is_naive(network, x, baselines, targets, *, atol=1e-5, naive=None, **options):
    """Compares all samples at once with the loop; the map and the scores must say something."""
    options = {"baselines": baselines, "n_groups": 3, **options}
    attributions, scores = GroupCAM(network, network.features).attribute(
        x, targets, relu_attributions=False, return_group_scores=True, **options
    )
    for n, image in enumerate(x):
        expected, alphas = naive_group_cam(
            network, image, baselines[n], targets[n], options["n_groups"], **(naive or {})
        )
        np.testing.assert_allclose(attributions[n].numpy(), expected, rtol=0, atol=atol)
        np.testing.assert_allclose(scores[n].numpy(), alphas, rtol=0, atol=atol)
        assert np.abs(expected).max() > 1e-3
        assert len(set(alphas)) > 1 or len(alphas) == 1
