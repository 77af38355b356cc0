"""What two maps agree on, each with the weight that the network gives it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module

from captum_groupcam.attr.functional.agreement import effect_weights, geometric_mean
from captum_groupcam.masking.targets import TargetType
from captum_groupcam.networks.target_layer import TargetLayer

from .candidates import two_kinds, with_effects
from .finish import detail

__all__ = ["agreed"]


def agreed(
    model: Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    n_groups: int = 19,
    contrast: float = 0.6,
    prior: float = 0.1,
    exponent: float = 4.0,
    floor: float = 0.02,
    power: float = 0.2,
    sigma: float = 6.0,
    guide: int = 8,
) -> Tensor:
    """The geometric mean of Finer-CAM and Group-CAM, weighted by their effects: 34 queries.

    With ``prior=0.5`` it is :class:`~captum_groupcam.ConsensusGroupCAM`.

    Where one map shows nothing, a mean of the logarithms shows little, whatever the other shows.
    Weights are powers of effects, so they depend on how many times larger one is, not on how sure
    the network is.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer that is explained.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_groups (int, optional): Groups of Group-CAM. Default: 19.
        contrast (float, optional): As in :func:`~benchmarks.research.looks.views`; Finer-CAM is the
            mean over the image and its mirror image. Default: 0.6.
        prior (float, optional): Share of Finer-CAM that is added to Group-CAM. Default: 0.1.
        exponent (float, optional): To which power effects are taken. Default: 4.0.
        floor (float, optional): What is added to maps, whose maximum is 1, before the logarithm.
            Zero is lost everywhere where one map is zero. Default: 0.02.
        power (float, optional): As in :func:`~benchmarks.research.judged.judged`. Default: 0.2.
        sigma (float, optional): As in :func:`~benchmarks.research.choices.detailed`. Default: 6.0.
        guide (int, optional): As in :func:`~benchmarks.research.choices.group_cam`. Default: 8.
    """
    probe, seen, of_groups = two_kinds(
        model, layer, inputs, target,
        n_groups=n_groups, n_shifts=1, contrast=contrast, prior=prior,
    )  # fmt: skip
    maps, effects = with_effects(probe, [seen, of_groups], inputs, guide)
    mean = geometric_mean(maps, effect_weights(effects, maps, exponent).to(maps), floor)
    return mean * detail(model, inputs, target, sigma=sigma) ** power if power else mean
