"""RISE: Randomized Input Sampling for Explanation (arXiv 1806.07421)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr._shared import Titled, shared_arguments
from captum_groupcam.masking.baselines import Baselines
from captum_groupcam.masking.call import (
    TensorOrTuple,
    isolated,
    like_inputs,
    prepare,
    warn_of_zero_maps,
)
from captum_groupcam.masking.checks import check_between, check_count, check_seed
from captum_groupcam.masking.network import ScoreFunc, class_probability

__all__ = ["RISE", "RandomMasks"]


@dataclass(frozen=True)
class RandomMasks:
    """The masks of RISE, the same for every sample, kept as the small grids they are made of.

    A mask is its grid of zeros and ones, upsampled linearly to one cell more than covers the input
    along each axis, of which a window of the input's size is seen.

    Args:
        grids (Tensor): G x grid, zeros and ones, floating point.
        shifts (Tensor): G x D, where the window begins along each axis, as a share of a cell in
            [0, 1), so that inputs of several sizes see the same.
        n_samples (int): N, the number of samples.

    Examples::

        >>> import torch
        >>> masks = RandomMasks(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5]]), n_samples=1)
        >>> masks.render(torch.tensor([0]), torch.tensor([0]), size=(4,))
        tensor([[[0.0000, 0.3333, 0.6667, 1.0000]]])
    """

    grids: Tensor
    shifts: Tensor
    n_samples: int

    @classmethod
    def draw(
        cls,
        n_masks: int,
        grid_size: Sequence[int],
        probability: float,
        generator: torch.Generator,
        *,
        n_samples: int,
        like: Tensor,
    ) -> RandomMasks:
        """Draws masks, the same on every device.

        Args:
            n_masks (int): Number of masks, G.
            grid_size (sequence of int): Cells along each axis.
            probability (float): Probability that a cell is one.
            generator (torch.Generator): Where chance comes from.
            n_samples (int): N, the number of samples.
            like (Tensor): Gives the device and the dtype; of any shape.

        Returns:
            RandomMasks: G masks, the same for each of N samples.
        """
        device = generator.device
        chance = torch.rand(n_masks, *grid_size, generator=generator, device=device)
        shifts = torch.rand(n_masks, len(grid_size), generator=generator, device=device)
        dtype = torch.promote_types(like.dtype, torch.float32)
        grids = (chance < probability).to(like.device, dtype)
        return cls(grids, shifts.to(like.device, torch.float64), n_samples)

    @property
    def informative(self) -> Tensor:
        """N x G booleans: a grid of zeros adds nothing, whatever its score."""
        return self.grids.flatten(1).any(1).expand(self.n_samples, -1)

    def render(
        self,
        samples: Tensor,  # noqa: ARG002 (every sample sees the same masks)
        masks: Tensor,
        size: Sequence[int],
        *,
        normalized: bool = True,  # noqa: ARG002 (they are in [0, 1] as they are)
    ) -> Tensor:
        """Renders Q masks: see :class:`~captum_groupcam.masking.masks.MaskSource`."""
        rendered = self.grids[masks]
        with torch.autocast(rendered.device.type, enabled=False):
            # Each step interpolates the first axis of the grid and puts it last.
            for length, shift in zip(size, self.shifts[masks].unbind(1), strict=True):
                weights = _interpolation(length, rendered.shape[1], shift).to(rendered)
                rendered = torch.einsum("qg...,qpg->q...p", rendered, weights)
        return rendered.unsqueeze(1)


@shared_arguments
class RISE(Titled, Attribution):
    r"""Explains a network from outside, by what it says of the input seen through random masks.

    .. math::

        S(\lambda) = \frac{1}{E[M] \cdot N} \sum_i f(I \cdot M_i) \, M_i(\lambda)

    Its arguments begin like those of Captum's methods on the input: inputs, baselines, target.

    Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
    Models", arXiv 1806.07421, eq. 6.

    Args:
        forward_func (Callable): {forward_func}
    """

    title = "RISE"

    @_captum.log_usage
    @shared_arguments
    def attribute(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines = None,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        *,
        targets: Sequence[_captum.TargetType] | None = None,
        n_masks: int = 4000,
        grid_size: int | Sequence[int] = 7,
        probability: float = 0.5,
        seed: int = 0,
        generator: torch.Generator | None = None,
        score_func: ScoreFunc = class_probability,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> TensorOrTuple:
        r"""Computes the map of each sample, at the resolution of the input.

        The defaults are the paper's for VGG-16; it takes ``n_masks=8000`` for ResNet-50. The code
        that its authors published takes ``n_masks=6000, grid_size=8, probability=0.1``.

        Args:
            inputs (Tensor or tuple of Tensor): {inputs}
            baselines (Tensor, float, callable, None or tuple of these, optional): {baselines}
                Default: None, zero, as in the paper and in Captum.
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            targets (sequence, optional): Instead of target, T of them, each in any form that
                target has: explained by the same queries, at the price of one. Default: None.
            n_masks (int, optional): Number of masks N, hence of forward passes for each sample.
                Default: 4000.
            grid_size (int or sequence of int, optional): Cells of a grid, along all axes or each.
                Default: 7.
            probability (float, optional): Probability that a cell shows the input, E[M], in
                (0, 1). Default: 0.5.
            seed (int, optional): Seed of the masks, if no generator is given. Default: 0.
            generator (torch.Generator, optional): Where the masks are drawn from. The global state
                of random numbers is neither used nor changed. Default: None.
            score_func (Callable, optional): Turns the network's output (N x classes x ...) into the
                scores f. Default: softmax over dimension 1.
            internal_batch_size (int, optional): {internal_batch_size}
            show_progress (bool, optional): {show_progress}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x spatial (with targets,
            N x T x spatial) at the resolution of the input. A tuple if inputs is one, with a zero
            (N x 1) for an input that is not masked.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: As for :meth:`GroupCAM.attribute() <captum_groupcam.GroupCAM.attribute>`,
                or if target and targets are both given.

        Examples::

            >>> import torch
            >>> from torch import nn
            >>> _ = torch.manual_seed(0)
            >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            >>> rise = RISE(net.eval())
            >>> rise.attribute(torch.rand(2, 3, 16, 16), target=3, n_masks=20).shape
            torch.Size([2, 1, 16, 16])
            >>> rise.attribute(torch.rand(2, 3, 16, 16), targets=[0, 3, [1, 2]], n_masks=20).shape
            torch.Size([2, 3, 16, 16])
        """
        check_count("n_masks", n_masks)
        check_between("probability", probability, 0, 1, ends="()")
        check_seed(seed)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator, got {generator!r}.")
        if targets is not None and not isinstance(targets, (list, tuple)):
            raise TypeError(f"targets must be a list of targets, got {targets!r}.")
        if targets is not None and (target is not None or len(targets) == 0):
            raise ValueError("Give target, or at least one of targets, not both.")
        with isolated():
            call = prepare(
                self.forward_func,
                inputs,
                target,
                additional_forward_args,
                baselines,
                default_baseline=0,
                score_func=score_func,
                internal_batch_size=internal_batch_size,
            )
            if targets is not None:
                call = call.with_targets(targets)
            whole = next(
                i for i, b in zip(call.inputs, call.baselines, strict=True) if b is not None
            )
            masks = RandomMasks.draw(
                n_masks,
                _grid_shape(grid_size, whole.dim() - 2),
                probability,
                torch.Generator().manual_seed(seed) if generator is None else generator,
                n_samples=call.network.n_samples,
                like=whole,
            )
            scores, queried = call.score_masks(masks, "RISE", show_progress=show_progress)
            attributions = call.merge(masks, scores / (probability * n_masks))
        warn_of_zero_maps(queried, attributions)
        return like_inputs(inputs, attributions)


def _grid_shape(grid_size: int | Sequence[int], dims: int) -> tuple[int, ...]:
    several = isinstance(grid_size, Sequence) and not isinstance(grid_size, str)
    shape = tuple(cast(Sequence[int], grid_size)) if several else (cast(int, grid_size),) * dims
    for cells in shape:
        check_count("grid_size", cells)
    if len(shape) != dims or min(shape) < 1:
        raise ValueError(
            f"grid_size must be positive, one number or one for each of {dims} axes, got "
            f"{grid_size}."
        )
    return shape


def _interpolation(length: int, cells: int, shifts: Tensor) -> Tensor:
    """Weights of a grid's cells for each position of a shifted window: Q x length x cells."""
    # Linear interpolation to (cells + 1) times a cell's size, corners not aligned.
    cell = -(-length // cells)  # pixels, rounded up
    start = (shifts * cell).floor()
    pixels = torch.arange(length, device=shifts.device, dtype=shifts.dtype)
    positions = (start.unsqueeze(1) + pixels + 0.5) * cells / ((cells + 1) * cell) - 0.5
    positions = positions.clamp(0, cells - 1).unsqueeze(-1)
    centres = torch.arange(cells, device=shifts.device, dtype=shifts.dtype)
    return (1 - (positions - centres).abs()).clamp(min=0)
