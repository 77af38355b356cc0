"""The algorithm of RISE (arXiv 1806.07421, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from captum_groupcam.attr._shared import shared_arguments
from captum_groupcam.attr.functional.results import QueriedMaps
from captum_groupcam.masking.call import Call, all_alike
from captum_groupcam.masking.checks import check_between, check_count, check_seed
from captum_groupcam.masking.random_masks import RandomMasks

__all__ = ["rise"]


@shared_arguments
def rise(
    call: Call,
    *,
    n_masks: int = 4000,
    grid_size: int | Sequence[int] = 7,
    probability: float = 0.5,
    seed: int = 0,
    generator: torch.Generator | None = None,
    show_progress: bool = False,
) -> QueriedMaps:
    """Adds up random masks, each by what the network says of the input seen through it (eq. 6).

    Source: Petsiuk, Das and Saenko, arXiv 1806.07421, section 3.

    Args:
        call (Call): The input I, its baseline, and the network that gives the scores f.
        n_masks (int, optional): Number of masks N, hence of forward passes for each sample.
            Default: 4000.
        grid_size (int or sequence of int, optional): Cells of a grid, along all axes or each.
            Default: 7.
        probability (float, optional): Probability that a cell shows the input, E[M], in
            (0, 1). Default: 0.5.
        seed (int, optional): Seed of the masks, if no generator is given. Default: 0.
        generator (torch.Generator, optional): Where the masks are drawn from. The global state
            of random numbers is neither used nor changed. Default: None.
        show_progress (bool, optional): {show_progress}

    Returns:
        QueriedMaps: Maps, N x 1 x spatial.

    Raises:
        TypeError: If an option has a wrong type.
        ValueError: If an option is out of range.

    Examples::

        >>> from captum_groupcam.masking.call import prepare
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
        >>> call = prepare(network, torch.rand(2, 3, 8, 8), 3, None, baselines=0)
        >>> rise(call, n_masks=20).maps[0].shape
        torch.Size([2, 1, 8, 8])
    """
    check_count("n_masks", n_masks)
    check_between("probability", probability, 0, 1, ends="()")
    check_seed(seed)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {generator!r}.")

    # Masks M_i: small random grids, upsampled and shifted when they are rendered.
    whole = next(i for i, b in zip(call.inputs, call.baselines, strict=True) if b is not None)
    masks = RandomMasks.draw(
        n_masks,
        _grid_shape(grid_size, whole.dim() - 2),
        probability,
        torch.Generator().manual_seed(seed) if generator is None else generator,
        n_samples=call.network.n_samples,
        like=whole,
    )

    # Scores: f(I * M_i).
    scores, queried = call.score_masks(masks, "RISE", show_progress=show_progress)

    # The map: the sum of f(I * M_i) M_i, divided by E[M] N.
    maps = call.merge(masks, scores / (probability * n_masks))
    return QueriedMaps(maps, queried, all_alike(scores, queried))


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
