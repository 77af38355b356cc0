"""What the algorithms on masks give: maps, and what they are made of."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from captum_groupcam.masking.masks import LayerMasks

__all__ = ["ConsensusResult", "GroupCAMResult", "QueriedMaps"]


class QueriedMaps(NamedTuple):
    """The map of each input.

    Attributes:
        maps (tuple of Tensor): N x 1 x spatial each, or N x T x spatial for T targets; zero (N x 1)
            for an input that is not masked.
        queried (Tensor): N x G booleans, whether the network was asked about a mask.
        unmoved (Tensor): N booleans, whether no mask moved the score.
    """

    maps: tuple[Tensor, ...]
    queried: Tensor
    unmoved: Tensor


class GroupCAMResult(NamedTuple):
    r"""The map of each input, and what it is made of.

    Attributes:
        maps (tuple of Tensor): N x 1 x spatial each; zero (N x 1) for an input that is not masked.
        queried (Tensor): N x G booleans, whether the network was asked about a group.
        scores (Tensor): N x G, :math:`\alpha_l`; zero for a group whose mask is flat.
        masks (LayerMasks): G masks a sample.
        activations (Tensor): N x K x spatial, :math:`A_k`.
        weights (Tensor): N x K, :math:`w_k`.
        unmoved (Tensor): N booleans, whether no group moved the score.
    """

    maps: tuple[Tensor, ...]
    queried: Tensor
    scores: Tensor
    masks: LayerMasks
    activations: Tensor
    weights: Tensor
    unmoved: Tensor


class ConsensusResult(NamedTuple):
    """The map of each input, and what its parts weigh.

    Attributes:
        maps (tuple of Tensor): N x 1 x spatial; zero (N x 1) for an input that is not masked.
        queried (Tensor): N x Q booleans, whether the network was asked what positions matter.
        effects (Tensor): N x 2, of Finer-CAM and of Group-CAM.
        unmoved (Tensor): N booleans, whether no group moved the score.
    """

    maps: tuple[Tensor, ...]
    queried: Tensor
    effects: Tensor
    unmoved: Tensor
