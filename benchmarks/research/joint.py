"""Masks that are optimised: what they show is to be enough, and what they hide not needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from captum_groupcam.attr.maps import divide_by_maximum, guided_filter
from captum_groupcam.masking.baselines import resolve_baselines
from captum_groupcam.masking.masks import normalize, upsample
from captum_groupcam.masking.targets import TargetType
from captum_groupcam.networks.target_layer import TargetLayer

from .looks import averaged
from .masks import group_masks
from .steps import BASELINES, Probe, lookup

__all__ = ["mask", "weights"]

#: What an optimised mask is multiplied by.
Times = Literal["nothing", "grad_cam", "views"]


def mask(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    cells: int = 14,
    n_steps: int = 5,
    rate: float = 1.0,
    area: float = 0.1,
    variation: float = 0.5,
    mirrored: bool = False,
    noise: float = 0.0,
    baselines: str = "blur",
    times: Times = "grad_cam",
    n_shifts: int = 4,
    contrast: float = 0.0,
    floor: float = 0.0,
    guide: int = 0,
    seed: int = 0,
) -> Tensor:
    """A coarse mask, begun from Grad-CAM, that a few steps of Adam improve: 31 queries.

    A step shows what the mask shows and what it hides, forth and back: six queries.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        cells (int, optional): Cells of the mask along each side. Default: 14.
        n_steps (int, optional): Steps. Default: 5.
        rate (float, optional): Adam's, for logits that begin between -3 and 3. Default: 1.0.
        area (float, optional): What the mean of the mask costs. Default: 0.1.
        variation (float, optional): What the mean difference of neighbouring cells costs.
            Default: 0.5.
        mirrored (bool, optional): Whether every second step sees the image mirrored.
            Default: False.
        noise (float, optional): Standard deviation of the noise that each step adds to the image.
            Default: 0.
        baselines (str, optional): Names of :data:`~benchmarks.research.steps.BASELINES`, joined by
            "+", that steps take in turn. Default: "blur".
        times (str, optional): What the mask is multiplied by: "nothing", "grad_cam" or "views".
            Default: "grad_cam".
        n_shifts (int, optional): As in :func:`~benchmarks.research.looks.views`. Default: 4.
        contrast (float, optional): As in :func:`~benchmarks.research.looks.views`. Default: 0.
        floor (float, optional): What is added to the mask before that. Default: 0.
        guide (int, optional): As in :func:`~benchmarks.research.choices.group_cam`. Default: 0.
        seed (int, optional): Seed of the noise. Default: 0.
    """
    probe = Probe.ask(model, layer, inputs, target)
    start = normalize(F.adaptive_avg_pool2d(upsample(probe.grad_cam, probe.size), cells))

    def shown(logits: Tensor) -> Tensor:
        return upsample(logits.sigmoid(), probe.size)

    def price(logits: Tensor) -> Tensor:
        grid = logits.sigmoid()
        differences = grid.diff(dim=2).abs().mean((1, 2, 3)) + grid.diff(dim=3).abs().mean(
            (1, 2, 3)
        )
        return area * grid.mean((1, 2, 3)) + variation * differences / 2

    loss = _removed_less_kept(probe, mirrored, noise, baselines, seed)
    logits = _improved(6 * start - 3, shown, price, loss, n_steps, rate)
    maps = normalize(guided_filter(shown(logits), inputs, guide)) + floor
    return maps * _factor(times, probe, model, layer, target, n_shifts, contrast)


def weights(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_groups: int = 32,
    n_steps: int = 5,
    rate: float = 0.5,
    area: float = 0.1,
    mirrored: bool = False,
    noise: float = 0.0,
    baselines: str = "blur",
    times: Times = "nothing",
    n_shifts: int = 4,
    contrast: float = 0.0,
    floor: float = 0.0,
    guide: int = 0,
    seed: int = 0,
) -> Tensor:
    """Group-CAM's masks with weights that are found together rather than one by one: 31 queries.

    What is shown is the mean of the masks, weighted by a softmax of logits. It cannot draw anything
    that the layer does not.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_groups (int, optional): G. Default: 32.
        n_steps (int, optional): As in :func:`mask`. Default: 5.
        rate (float, optional): As in :func:`mask`, for logits that begin at 0. Default: 0.5.
        area (float, optional): As in :func:`mask`. Default: 0.1.
        mirrored (bool, optional): As in :func:`mask`. Default: False.
        noise (float, optional): As in :func:`mask`. Default: 0.
        baselines (str, optional): As in :func:`mask`. Default: "blur".
        times (str, optional): As in :func:`mask`. Default: "nothing".
        n_shifts (int, optional): As in :func:`mask`. Default: 4.
        contrast (float, optional): As in :func:`mask`. Default: 0.
        floor (float, optional): As in :func:`mask`. Default: 0.
        guide (int, optional): As in :func:`mask`. Default: 0.
        seed (int, optional): As in :func:`mask`. Default: 0.
    """
    probe = Probe.ask(model, layer, inputs, target)
    made = group_masks(probe, n_groups)
    n = len(inputs)
    samples = torch.arange(n, device=inputs.device).repeat_interleave(n_groups)
    groups = torch.arange(n_groups, device=inputs.device).repeat(n)
    rendered = made.render(samples, groups, probe.size).view(n, n_groups, *probe.size)

    def shown(logits: Tensor) -> Tensor:
        shares = logits.masked_fill(~made.informative, -torch.inf).softmax(1).nan_to_num()
        return normalize((shares[..., None, None] * rendered).sum(1, keepdim=True))

    def price(logits: Tensor) -> Tensor:
        return area * shown(logits).mean((1, 2, 3))

    loss = _removed_less_kept(probe, mirrored, noise, baselines, seed)
    logits = _improved(rendered.new_zeros(n, n_groups), shown, price, loss, n_steps, rate)
    maps = normalize(guided_filter(shown(logits), inputs, guide)) + floor
    return maps * _factor(times, probe, model, layer, target, n_shifts, contrast)


def _improved(
    start: Tensor,
    shown: Callable[[Tensor], Tensor],
    price: Callable[[Tensor], Tensor],
    loss: Callable[[Tensor, int], Tensor],
    n_steps: int,
    rate: float,
) -> Tensor:
    """Parameters after a few steps of Adam; each sample goes its own way."""
    found = start.clone().requires_grad_()
    adam = torch.optim.Adam([found], lr=rate)
    for step in range(n_steps):
        with torch.enable_grad():
            total = loss(shown(found), step) + price(found)
            (found.grad,) = torch.autograd.grad(total.sum(), found)
        adam.step()
    return found.detach()


def _removed_less_kept(
    probe: Probe, mirrored: bool, noise: float, baselines: str, seed: int
) -> Callable[[Tensor, int], Tensor]:
    """What the network says of what a mask hides, less what it says of what it shows: N."""
    (image,), network = probe.call.inputs, probe.call.network
    hidden = [
        resolve_baselines(lookup(BASELINES, name, "baseline"), (image,))[0]
        for name in baselines.split("+")
    ]
    generator = torch.Generator().manual_seed(seed)
    samples = torch.arange(len(image), device=image.device).repeat(2)

    def loss(shown: Tensor, step: int) -> Tensor:
        instead = hidden[step % len(hidden)]
        seen = image
        if noise:  # the same for each sample, so that a batch equals its samples
            seen = image + noise * torch.randn(image.shape[1:], generator=generator).to(image)
        rows = torch.cat([seen * m + instead * (1 - m) for m in (1 - shown, shown)])
        rows = rows.flip(-1) if mirrored and step % 2 else rows
        output = network.forward_func(rows)
        scores = network.target.select(network.score_func(output), samples)
        removed, kept = scores.view(2, -1).unbind()
        return removed - kept

    return loss


def _factor(
    times: Times,
    probe: Probe,
    model: Module,
    layer: TargetLayer,
    target: TargetType,
    n_shifts: int,
    contrast: float,
) -> Tensor:
    if times == "nothing":
        return torch.ones_like(probe.grad_cam[..., :1, :1])
    if times == "views":
        return averaged(probe, model, layer, target, n_shifts, contrast=contrast)
    return divide_by_maximum(upsample(probe.grad_cam, probe.size))
