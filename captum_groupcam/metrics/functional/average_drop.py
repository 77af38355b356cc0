"""Average drop and increase in confidence: what is left of the score under the map?"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_groupcam._captum import ForwardFunc, TargetType
from captum_groupcam.masking.call import prepare
from captum_groupcam.masking.masks import normalize
from captum_groupcam.masking.network import ScoreFunc, class_probability
from captum_groupcam.masking.queries import score_samples
from captum_groupcam.metrics.functional._maps import match_maps, warn_if_constant
from captum_groupcam.threads import exclusive

__all__ = ["AverageDropResult", "average_drop"]


class AverageDropResult(NamedTuple):
    """Values of N samples.

    Attributes:
        average_drop (Tensor): Drop of the score in percent of the whole image's score, 0 where it
            rises, N; lower is better.
        increase_in_confidence (Tensor): 100 where the score rises, else 0, N; higher is better.
    """

    average_drop: Tensor
    increase_in_confidence: Tensor


@exclusive()
def average_drop(
    forward_func: ForwardFunc,
    maps: Tensor,
    inputs: Tensor,
    target: TargetType = None,
    additional_forward_args: Any = None,
    *,
    score_func: ScoreFunc = class_probability,
    internal_batch_size: int | None = None,
) -> AverageDropResult:
    r"""Average drop and increase in confidence (Grad-CAM++, arXiv 1710.11063, section 4.1).

    The network sees the explanation map :math:`E = L \circ I`, the input times the map L brought
    to [0, 1] by its minimum and maximum. With Y the score of the whole input and O that of E, the
    drop is :math:`100 \max(0, Y - O) / Y` and the increase :math:`100 \cdot [Y < O]`; their means
    over the samples are the paper's average drop and increase in confidence, in percent.

    Args:
        forward_func (Callable): The network or any modification of its forward function.
        maps (Tensor): N x 1 x spatial or N x spatial, of the inputs' spatial size.
        inputs (Tensor): N x C x spatial, one to three spatial dimensions.
        target (int, tuple, Tensor, list or None, optional): As in Captum. Default: None.
        additional_forward_args (Any, optional): As in Captum. Default: None.
        score_func (Callable, optional): Turns the network's output into scores, which must not be
            negative. Default: softmax over dimension 1.
        internal_batch_size (int, optional): Images of one forward pass. Default: None,
            :data:`~captum_groupcam.masking.network.DEFAULT_BATCH_SIZE`.

    Returns:
        AverageDropResult: Percentages, one a sample.

    Raises:
        ValueError: If shapes do not fit (that maps and inputs are swapped is said where shapes show
            it), a map, an input or a score is not finite (the samples are
            named), a score is negative, or a target is out of range.

    Warns:
        UserWarning: If a map is constant: its minimum is its maximum, and nothing is shown.

    Examples::

        >>> import torch
        >>> inputs = torch.tensor([[[3.0, 1.0]], [[-1.0, 2.0]]])
        >>> maps = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> average_drop(lambda x: x.sum((1, 2)), maps, inputs)
        AverageDropResult(average_drop=tensor([25.,  0.]),
                          increase_in_confidence=tensor([  0., 100.]))
    """
    maps = match_maps(maps, inputs)
    (whole,), _, network, _ = prepare(
        forward_func,
        inputs,
        target,
        additional_forward_args,
        0.0,
        score_func=score_func,
        internal_batch_size=internal_batch_size,
    )
    warn_if_constant(maps, "nothing of the input is shown.")
    explained = whole * normalize(maps).to(whole)
    before = score_samples(network, (whole,))
    after = score_samples(network, (explained,))
    negative = (before < 0) | (after < 0)
    if negative.any():
        raise ValueError(
            "A drop relative to the score needs scores that are not negative, got negative ones "
            f"for samples {negative.nonzero().flatten().tolist()}. Let score_func return "
            "probabilities."
        )
    # A score of zero has nothing to lose.
    drop = torch.where(before > 0, (before - after).clamp(min=0) / before, 0)
    return AverageDropResult(100 * drop, 100 * (after > before).to(drop))
