"""Other questions than Group-CAM's: what the network is asked with the same number of queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from captum_groupcam.attr.maps import divide_by_maximum, guided_filter
from captum_groupcam.masking.masks import LayerMasks, denoise, normalize, upsample
from captum_groupcam.masking.queries import score_masks, score_samples
from captum_groupcam.masking.random_masks import RandomMasks
from captum_groupcam.masking.targets import TargetType
from captum_groupcam.networks.target_layer import TargetLayer

from .finish import detail, with_prior
from .masks import At, cut_out, group_masks, merged
from .regression import mask_cells, posterior, smoothness
from .runs import ordered
from .steps import Complements, Probe, score_gains

__all__ = ["adaptive", "chosen", "coalitions", "kept_and_removed", "random_masks"]


def kept_and_removed(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_groups: int = 15,
    **masks: Any,
) -> Tensor:
    """What a mask alone is good for and what is lost without it, added: 33 queries.

    Deletion asks for the latter, Group-CAM only for the former.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_groups (int, optional): G, each asked twice. Default: 15.
        **masks (Any, optional): See :func:`~benchmarks.research.masks.group_masks`.
    """
    probe = Probe.ask(model, layer, inputs, target)
    made = group_masks(probe, n_groups, **masks)
    whole = score_samples(probe.call.network, probe.call.inputs)
    lost = score_gains(probe, Complements(made), reference=whole)
    return merged(probe, made, score_gains(probe, made) - lost)


def adaptive(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    first: int = 8,
    best: int = 4,
    parts: int = 3,
    rounds: int = 2,
    order: str = "place",
    percentile: float | None = 70.0,
    denoise_at: At = "input",
) -> Tensor:
    """Splits the groups that matter most, round by round: 34 queries.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        first (int, optional): Groups of the first round. Default: 8.
        best (int, optional): How many are split in each of the other rounds. Default: 4.
        parts (int, optional): Into how many. Default: 3.
        rounds (int, optional): How often. Default: 2.
        order (str, optional): What channels are sorted by; groups are runs of them, as are their
            parts. Default: "place".
        percentile (float, optional): As in :func:`~benchmarks.research.masks.group_masks`.
            Default: 70.0.
        denoise_at (str, optional): The same. Default: "input".
    """
    probe = Probe.ask(model, layer, inputs, target)
    hidden = score_samples(probe.call.network, probe.call.hidden)
    contributions = probe.contributions
    sequence = ordered(contributions, order).view(*contributions.shape[:2], 1, 1)
    sums = contributions.take_along_dim(sequence, 1).cumsum(1)
    sums = F.pad(sums, (0, 0, 0, 0, 1, 0))  # a run's sum is the difference between its ends

    channels = contributions.shape[1]
    edges = torch.linspace(0, channels, min(first, channels) + 1, device=inputs.device)
    edges = edges.round().long().expand(len(inputs), -1)
    starts, ends = edges[:, :-1], edges[:, 1:]
    maps, alphas = [], []
    for remaining in reversed(range(rounds + 1)):
        upto, before = (sums.take_along_dim(at[..., None, None], 1) for at in (ends, starts))
        # What rounding leaves of an empty run, or of one without contributions, is not a mask.
        difference = (upto - before).relu()
        floor = torch.finfo(sums.dtype).eps * sums.abs().amax((1, 2, 3), keepdim=True) * channels
        maps.append(torch.where(difference.amax((2, 3), keepdim=True) > floor, difference, 0))
        found = score_gains(probe, cut_out(maps[-1], percentile, denoise_at), reference=hidden)
        alphas.append(found)
        if remaining:
            chosen = found.topk(min(best, found.shape[1]), dim=1).indices
            alphas[-1] = found.scatter(1, chosen, 0)  # its parts stand for a group
            begin, length = starts.gather(1, chosen), (ends - starts).gather(1, chosen)
            cuts = [begin + length * part // parts for part in range(parts + 1)]
            starts, ends = torch.cat(cuts[:-1], 1), torch.cat(cuts[1:], 1)
    made = cut_out(torch.cat(maps, 1), percentile, denoise_at)
    return merged(probe, made, torch.cat(alphas, 1))


def coalitions(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_groups: int = 16,
    order: str = "place",
    balanced: bool = True,
    percentile: float | None = 70.0,
    prior: float = 0.0,
) -> Tensor:
    """Each query shows half of the groups, and their effects are solved for: 33 queries.

    A group alone is judged in one context, where all else is hidden. Here it is judged in as many
    as there are queries. Coalitions are the rows of a Hadamard matrix, each asked with its
    complement (a foldover design: Plackett and Burman, *The design of optimum multifactorial
    experiments*, 1946), so that the effect of a group is mixed up neither with another's nor with
    what two groups do together.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_groups (int, optional): G, a power of two; 2 G queries. Default: 16.
        order (str, optional): As in :func:`~benchmarks.research.masks.group_masks`.
            Default: "place", for groups that cover the same places tell nothing apart.
        balanced (bool, optional): The same. Default: True.
        percentile (float, optional): The same, at the layer's resolution. Default: 70.0.
        prior (float, optional): Share of Grad-CAM that is added. Default: 0.
    """
    probe = Probe.ask(model, layer, inputs, target)
    made = group_masks(probe, n_groups, order=order, balanced=balanced, percentile=None)
    single = normalize(made.maps if percentile is None else denoise(made.maps, percentile))
    signs = hadamard(n_groups).to(single)
    members = torch.cat([signs, -signs]) > 0
    # A coalition shows what any of its members shows.
    unions = [torch.where(m.view(-1, 1, 1), single, 0).amax(1) for m in members]
    inputs_, baselines, network, _ = probe.call
    scores, queried = score_masks(network, inputs_, baselines, LayerMasks(torch.stack(unions, 1)))
    # A coalition that shows nothing is not asked about: its score is known.
    hidden = score_samples(network, probe.call.hidden)
    scores = torch.where(queried, scores, hidden.unsqueeze(1))
    effects = (scores[:, :n_groups] - scores[:, n_groups:]) @ signs.to(scores) / n_groups
    return with_prior(merged(probe, LayerMasks(single), effects), probe, prior)


def random_masks(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_pairs: int = 16,
    grid_size: int = 7,
    noise: float = 1.0,
    length: float = 0.15,
    cells: int = 14,
    seed: int = 0,
) -> Tensor:
    """RISE's masks, explained by a smooth map that begins as Grad-CAM: 33 queries.

    RISE needs thousands of queries since it starts from nothing; here they only correct Grad-CAM.
    Each mask is asked with its complement, so that what both have in common cancels out.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_pairs (int, optional): Masks, each asked twice. Default: 16.
        grid_size (int, optional): Cells of a mask along each side. Default: 7.
        noise (float, optional): See :func:`~benchmarks.research.regression.posterior`.
            Default: 1.0.
        length (float, optional): See :func:`~benchmarks.research.regression.smoothness`.
            Default: 0.15.
        cells (int, optional): Cells of the map along each side. Default: 14.
        seed (int, optional): Seed of the masks. Default: 0.
    """
    probe = Probe.ask(model, layer, inputs, target)
    generator = torch.Generator().manual_seed(seed)
    masks = RandomMasks.draw(
        n_pairs, (grid_size, grid_size), 0.5, generator, n_samples=len(inputs), like=inputs
    )
    inputs_, baselines, network, _ = probe.call
    shown, _ = score_masks(network, inputs_, baselines, masks)
    hidden, _ = score_masks(network, inputs_, baselines, Complements(masks))
    grid = (cells, cells)
    rows = 2 * mask_cells(masks, probe.size, grid) - 1
    expected = F.adaptive_avg_pool2d(upsample(probe.grad_cam, probe.size), grid).flatten(1)
    covariance = smoothness(grid, length, rows)
    maps = posterior(rows, (shown - hidden).to(rows), expected, covariance, noise)
    return upsample(maps.view(-1, 1, *grid), probe.size)


def chosen(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_groups: int = 0,
    power: float = 0.8,
    n_powers: int = 3,
    sigma: float = 6.0,
    n_shares: int = 5,
    reach: float = 0.6,
    guide: int = 0,
    second: str | None = None,
) -> Tensor:
    """Several maps at the price of a gradient, and the network says which is best: 34 queries.

    It is asked what deletion and insertion ask, at a few shares of the pixels, so this is fitted to
    that measure, image by image: only measures of another kind can say whether it is better.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_groups (int, optional): Groups of Group-CAM, whose map is one to choose from beside
            Grad-CAM. Default: 0, Grad-CAM alone.
        power (float, optional): As in :func:`~benchmarks.research.choices.detailed`; with 0 no
            gradient of the input is asked for. Default: 0.8.
        n_powers (int, optional): Each map comes with as many powers of the gradient, from `power`
            down to zero. Default: 3.
        sigma (float, optional): As in :func:`~benchmarks.research.choices.detailed`. Default: 6.0.
        n_shares (int, optional): Number of shares of the pixels. Default: 5.
        reach (float, optional): The shares are the middles of equal parts of what is below.
            Default: 0.6.
        guide (int, optional): As in :func:`~benchmarks.research.choices.group_cam`. Default: 0.
        second (str, optional): Dotted name of another layer, whose Grad-CAM (plus a tenth of its
            maximum) takes the place of the gradient, at one query rather than three. Default: None.
    """
    probe = Probe.ask(model, layer, inputs, target)
    maps = upsample(probe.grad_cam, probe.size)
    if n_groups:
        made = group_masks(probe, n_groups)
        group_cam = merged(probe, made, score_gains(probe, made))
        maps = torch.cat([maps, with_prior(group_cam, probe, 0.1)], 1)
    maps = guided_filter(maps, inputs, guide)
    if power:
        if second:
            other = Probe.ask(model, TargetLayer.of(model, second), inputs, target)
            pixels = 0.1 + divide_by_maximum(upsample(other.grad_cam, probe.size))
        else:
            pixels = detail(model, inputs, target, sigma=sigma)
        powers = torch.linspace(power, 0, n_powers).tolist()
        maps = torch.cat([maps * pixels**exponent for exponent in powers], 1)
    shares = [(index + 0.5) / n_shares * reach for index in range(n_shares)]
    best = mean_effect(probe, maps, shares).argmax(1)
    return maps.take_along_dim(best.view(-1, 1, 1, 1), 1)


def mean_effect(probe: Probe, maps: Tensor, shares: Sequence[float]) -> Tensor:
    """What the pixels that maps rank first do when they alone are shown, or hidden: N x M.

    Args:
        probe (Probe): Whose network is asked, twice for each map and share.
        maps (Tensor): N x M x H x W.
        shares (sequence of float): Shares of the pixels, over which the mean is taken.
    """
    ranks = maps.flatten(2).argsort(-1, descending=True).argsort(-1).view_as(maps)
    counts = [max(round(share * maps[0, 0].numel()), 1) for share in shares]
    first = torch.stack([(ranks < count).to(maps) for count in counts], 2)
    masks = LayerMasks(first.flatten(1, 2))  # at the input's own resolution
    inputs, baselines, network, _ = probe.call
    shown, _ = score_masks(network, inputs, baselines, masks)
    without, _ = score_masks(network, inputs, baselines, Complements(masks))
    return (shown - without).view(*maps.shape[:2], len(shares)).mean(-1)


def hadamard(size: int) -> Tensor:
    """A matrix of ones and minus ones with orthogonal rows (Sylvester's construction)."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    if len(matrix) != size:
        raise ValueError(f"n_groups must be a power of two, got {size}.")
    return matrix
