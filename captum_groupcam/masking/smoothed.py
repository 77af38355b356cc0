"""Several queries for each mask, of which the mean counts: with noise, or along a path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from captum_groupcam.masking.checks import check_between, check_choice, check_count
from captum_groupcam.masking.masks import MaskSource

__all__ = ["SmoothedMasks", "Smoothing", "growing", "noisy", "smoother"]

Smoothing: TypeAlias = Literal["none", "noise", "integral"]
#: Variants of a mask: SS-CAM's and IS-CAM's are those of their papers.
_N_VARIANTS = {"none": 1, "noise": 35, "integral": 10}


@dataclass(frozen=True)
class SmoothedMasks:
    """Variants of masks, one after the other: G x S masks a sample.

    Args:
        masks (MaskSource): G masks for each of N samples.
        n_variants (int): S, how many variants of each there are.
        alter (Callable): Gets rendered masks (Q x 1 x spatial), Q indices of masks and Q of
            variants; gives the variants, which may leave [0, 1].

    Examples::

        >>> from captum_groupcam.masking.masks import LayerMasks
        >>> masks = LayerMasks(torch.tensor([[[0.0, 1.0], [3.0, 3.0]]]))
        >>> smoothed = SmoothedMasks(masks, 2, lambda rendered, _, variants: rendered + variants)
        >>> smoothed.informative
        tensor([[ True,  True, False, False]])
        >>> smoothed.render(torch.tensor([0]), torch.tensor([1]), size=(2,))
        tensor([[[1., 2.]]])
        >>> smoothed.mean(torch.tensor([[1.0, 2.0, 0.0, 0.0]]))
        tensor([[1.5000, 0.0000]])
    """

    masks: MaskSource
    n_variants: int
    alter: Callable[[Tensor, Tensor, Tensor], Tensor]

    @property
    def informative(self) -> Tensor:
        """N x (G S) booleans: those of the masks."""
        return self.masks.informative.repeat_interleave(self.n_variants, 1)

    def render(
        self, samples: Tensor, masks: Tensor, size: Sequence[int], *, normalized: bool = True
    ) -> Tensor:
        """Renders Q variants, Q x 1 x size (see :class:`MaskSource`)."""
        which, variants = masks // self.n_variants, masks % self.n_variants
        rendered = self.masks.render(samples, which, size, normalized=normalized)
        return self.alter(rendered, which, variants)

    def mean(self, scores: Tensor) -> Tensor:
        """The mean over the variants of each mask.

        Args:
            scores (Tensor): N x (G S).

        Returns:
            Tensor: N x G.
        """
        return scores.reshape(len(scores), -1, self.n_variants).mean(2)


def smoother(
    smoothing: Smoothing, n_samples: int | None = None, noise_level: float = 2.0, seed: int = 0
) -> Callable[[MaskSource], SmoothedMasks]:
    """What makes smoothed masks of masks, its options checked.

    Args:
        smoothing (str): "none", "noise" (:func:`noisy`) or "integral" (:func:`growing`).
        n_samples (int, optional): Variants of each mask, if there are any. Default: None, 35 and
            10.
        noise_level (float, optional): Standard deviation of the noise. Default: 2.0.
        seed (int, optional): Seed of the noise. Default: 0.

    Returns:
        Callable: Takes masks, gives smoothed ones.

    Raises:
        TypeError: If an option has a wrong type.
        ValueError: If an option is out of range.

    Examples::

        >>> from captum_groupcam.masking.masks import LayerMasks
        >>> smoother("integral")(LayerMasks(torch.rand(1, 2, 3))).informative.shape
        torch.Size([1, 20])
    """
    check_choice("smoothing", smoothing, *_N_VARIANTS)
    n_variants = _N_VARIANTS[smoothing] if n_samples is None else n_samples
    check_count("n_samples", n_variants)
    check_between("noise_level", noise_level, 0, torch.inf, ends="[)")
    check_count("seed", seed, 0)
    n_variants = 1 if smoothing == "none" else n_variants
    alter = {"noise": noisy(noise_level, seed), "integral": growing(n_variants)}.get(
        smoothing, _same
    )
    return partial(SmoothedMasks, n_variants=n_variants, alter=alter)


def _same(rendered: Tensor, _masks: Tensor, _variants: Tensor) -> Tensor:
    return rendered


def noisy(noise_level: float, seed: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Adds Gaussian noise to masks, as SS-CAM does.

    Args:
        noise_level (float): Standard deviation of the noise.
        seed (int): Its seed: every sample gets the same noise, on every device and whichever masks
            are rendered beside it.

    Returns:
        Callable: Alters masks, see :class:`SmoothedMasks`.

    Examples::

        >>> first, again = (
        ...     noisy(2.0, 0)(torch.zeros(1, 1, 3), torch.tensor([5]), torch.tensor([variant]))
        ...     for variant in (1, 1)
        ... )
        >>> torch.equal(first, again)
        True
    """

    def alter(rendered: Tensor, masks: Tensor, variants: Tensor) -> Tensor:
        drawn = []
        for mask, variant in zip(masks.tolist(), variants.tolist(), strict=True):
            # Neither more samples nor other masks change what one of them sees.
            state = np.random.SeedSequence((seed, mask, variant)).generate_state(1)
            generator = torch.Generator().manual_seed(int(state[0]))
            drawn.append(torch.randn(rendered.shape[1:], generator=generator))
        return rendered + noise_level * torch.stack(drawn).to(rendered)

    return alter


def growing(n_steps: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    r"""Shows more of a mask with each step, as IS-CAM does.

    In step i a mask is multiplied by :math:`\sum_{j \le i} j / S`, for i from 1 to S: the paper
    adds up the steps, so that the last ones lie beyond the mask.

    Args:
        n_steps (int): S, the number of steps.

    Returns:
        Callable: Alters masks, see :class:`SmoothedMasks`.

    Examples::

        >>> growing(2)(torch.ones(2, 1, 1), torch.tensor([0, 0]), torch.tensor([0, 1])).flatten()
        tensor([0.5000, 1.5000])
    """

    def alter(rendered: Tensor, _masks: Tensor, variants: Tensor) -> Tensor:
        steps = (variants + 1).to(rendered)
        shares = steps * (steps + 1) / (2 * n_steps)
        return rendered * shares.view(-1, *(1 for _ in rendered.shape[1:]))

    return alter
