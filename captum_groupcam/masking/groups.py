"""Split: channels of a layer to groups, groups to maps (Group-CAM, section 3.1)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_groupcam.masking.checks import check_count

__all__ = ["GROUPINGS", "Grouping", "find_grouping", "group_maps", "split_channels"]

#: Assigns the K channels of N samples (N x K x spatial) to G groups: N x K indices below G.
Grouping: TypeAlias = Callable[[Tensor, int], Tensor]


_MEMBERSHIPS = 2**24


def contiguous(activations: Tensor, n_groups: int) -> Tensor:
    """Runs of neighbouring channels, as equal as ``torch.tensor_split`` makes them."""
    samples, channels = activations.shape[:2]
    runs = torch.arange(channels, device=activations.device).tensor_split(n_groups)
    groups = torch.cat([torch.full_like(run, group) for group, run in enumerate(runs)])
    return groups.expand(samples, channels)


def k_means(activations: Tensor, n_groups: int) -> Tensor:
    """Clusters of channels that are active in the same places, by scikit-learn's KMeans."""
    return _clusters(
        activations, n_groups, lambda cluster, n: cluster.KMeans(n, n_init=1, random_state=0)
    )


def agglomerative(activations: Tensor, n_groups: int) -> Tensor:
    """Clusters of channels, by scikit-learn's AgglomerativeClustering (Ward linkage)."""
    return _clusters(activations, n_groups, lambda cluster, n: cluster.AgglomerativeClustering(n))


#: Ways to split channels, by name.
#:
#: :meta hide-value:
GROUPINGS: dict[str, Grouping] = {
    "contiguous": contiguous,
    "k_means": k_means,
    "agglomerative": agglomerative,
}


def split_channels(
    activations: Tensor, n_groups: int, grouping: str | Grouping = "contiguous"
) -> Tensor:
    """Assigns every channel of every sample to a group.

    Args:
        activations (Tensor): N x K x spatial, the activations of a layer.
        n_groups (int): Number of groups, G; capped at K.
        grouping (str or Callable, optional): A name in :data:`GROUPINGS`, or a function of that
            form. Default: "contiguous", as in the paper.

    Returns:
        Tensor: N x K, for each channel the index of its group.

    Raises:
        TypeError: As :func:`find_grouping`, or if a function returns anything but a tensor of
            integers.
        ValueError: As :func:`find_grouping`, or if a function returns other groups or not one for
            each channel.

    Examples::

        >>> import torch
        >>> split_channels(torch.zeros(1, 5, 2, 2), n_groups=2)
        tensor([[0, 0, 0, 1, 1]])
    """
    grouping = find_grouping(n_groups, grouping)
    n_groups = min(n_groups, activations.shape[1])
    groups = grouping(activations, n_groups)
    if not isinstance(groups, Tensor) or groups.is_floating_point() or groups.dtype is torch.bool:
        raise TypeError(
            "A grouping returns a tensor of integers, got "
            f"{groups.dtype if isinstance(groups, Tensor) else type(groups).__name__}."
        )
    if groups.shape != activations.shape[:2]:
        raise ValueError(
            "A grouping returns one group for each sample and channel, "
            f"{tuple(activations.shape[:2])}; got {tuple(groups.shape)}."
        )
    if groups.min() < 0 or groups.max() >= n_groups:
        raise ValueError(
            f"A grouping returns integers from 0 to {n_groups - 1}; got some from "
            f"{groups.min().item()} to {groups.max().item()}."
        )
    return groups.to(activations.device, torch.long)


def find_grouping(n_groups: int, grouping: str | Grouping) -> Grouping:
    """Looks a grouping up, and checks the number of groups, before anything is split.

    Args:
        n_groups (int): Number of groups.
        grouping (str or Callable): A name in :data:`GROUPINGS`, or a function of that form.

    Returns:
        Callable: The function: N x K x spatial activations and G to N x K indices.

    Raises:
        TypeError: If the number is not whole, or the grouping neither a name nor a function.
        ValueError: If the number is not positive, or the name is unknown.

    Examples::

        >>> find_grouping(4, "contiguous").__name__
        'contiguous'
    """
    check_count("n_groups", n_groups)
    if isinstance(grouping, str):
        if grouping not in GROUPINGS:
            raise ValueError(f"Unknown grouping {grouping!r}: expected one of {list(GROUPINGS)}.")
        return GROUPINGS[grouping]
    if not callable(grouping):
        raise TypeError(
            f"grouping must be a name or a function, got {type(grouping).__name__}; the names are "
            f"{', '.join(GROUPINGS)}."
        )
    return grouping


def group_maps(activations: Tensor, weights: Tensor, groups: Tensor, n_groups: int) -> Tensor:
    r"""Sums the weighted activations of each group and keeps what speaks for the class.

    :math:`M_l = \mathrm{ReLU}(\sum_{k \in G_l} w_k A_k)` (Group-CAM, eq. 3).

    Args:
        activations (Tensor): N x K x spatial, the activations A_k.
        weights (Tensor): N x K, the weights w_k.
        groups (Tensor): N x K, the group of each channel.
        n_groups (int): Number of groups, G; capped at K as in :func:`split_channels`.

    Returns:
        Tensor: N x G x spatial, the maps M_l.

    Examples::

        >>> import torch
        >>> activations = torch.tensor([[[1.0, 2.0], [3.0, 1.0], [1.0, 1.0]]])
        >>> weights = torch.tensor([[1.0, -1.0, 2.0]])
        >>> group_maps(activations, weights, torch.tensor([[0, 0, 1]]), n_groups=2)
        tensor([[[0., 1.],
                 [2., 2.]]])
    """
    n_groups = min(n_groups, activations.shape[1])
    # As many samples at a time as keep the memberships of their channels small.
    size = max(1, _MEMBERSHIPS // (n_groups * activations.shape[1]))
    starts = range(0, len(activations), size)
    chunks = [slice(start, start + size) for start in starts]
    maps = torch.cat([_sum_groups(activations[c], weights[c], groups[c], n_groups) for c in chunks])
    return maps.view(*maps.shape[:2], *activations.shape[2:]).relu()


def _sum_groups(activations: Tensor, weights: Tensor, groups: Tensor, n_groups: int) -> Tensor:
    members = groups.unsqueeze(1) == torch.arange(n_groups, device=groups.device).view(-1, 1)
    weighted = torch.where(members, weights.unsqueeze(1), 0)
    # Relative to its minimum a constant channel is exactly zero, so the rounding of a sum, which
    # may differ between positions, cannot turn constant channels into a mask.
    flat = activations.flatten(2)
    floor = flat.amin(-1, keepdim=True)
    # A product of matrices, unlike a scattered sum, is deterministic on every device.
    with torch.autocast(activations.device.type, enabled=False):
        return weighted @ (flat - floor) + weighted @ floor


def _clusters(activations: Tensor, n_groups: int, estimator: Callable[[Any, int], Any]) -> Tensor:
    try:
        cluster = importlib.import_module("sklearn.cluster")
    except ImportError as error:
        raise ImportError(
            "Clustering channels needs scikit-learn: pip install 'captum_groupcam[cluster]'."
        ) from error
    labels = []
    for maps in activations.flatten(2).cpu().double():
        n_clusters = min(n_groups, len(maps.unique(dim=0)))  # equal channels look the same
        if n_clusters == 1:  # for one channel scikit-learn raises
            labels.append(torch.zeros(len(maps), dtype=torch.long))
        else:
            clusters = estimator(cluster, n_clusters).fit(maps.numpy())
            labels.append(torch.from_numpy(clusters.labels_).long())
    return torch.stack(labels).to(activations.device)
