"""Whether the positions of a layer follow the input, where shapes leave it open.

That is asked of one sample, in the middle of a call, so it knows no modules, as
:mod:`~captum_groupcam.networks._evidence` does: only a function that gives the layer for an input.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from captum_groupcam.networks._location import CLEAR, DRAWS, centers, fit
from captum_groupcam.networks._watched import AMOUNT

__all__ = [
    "Followed",
    "axes_that_follow",
    "grid_that_follows",
    "inputs_that_lie_elsewhere",
    "is_doubtful",
    "order_that_follows",
]

#: A grid is followed, and one is not where another is: the least correlation along its axes.
FOLLOWED, NOT_FOLLOWED = 0.6, 0.4
#: Few positions follow by chance more easily; fewer still say nothing.
FOLLOWED_BY_FEW, FEW, TOO_FEW = 0.75, 16, 8


class Followed(NamedTuple):
    """What the network says of a reading of a layer.

    Attributes:
        given (float): How well the positions follow the input as they are read: the least
            correlation along an axis.
        other (tuple of int or None): Another reading that they follow far better.
    """

    given: float
    other: tuple[int, ...] | None

    @property
    def unclear(self) -> bool:
        """Whether they follow neither."""
        return self.other is None and not self.given > FOLLOWED


def is_doubtful(grid: Sequence[int], size: Sequence[int], *, chosen: bool) -> bool:
    """Whether a grid may not be that of the input: turned, or chosen with patches as it likes.

    Args:
        grid (sequence of int): Positions along each axis.
        size (sequence of int): Spatial size of the input.
        chosen (bool): Whether the number of positions admits other grids, as that of tokens does.

    Returns:
        bool: Whether it is worth asking the network.

    Examples::

        >>> is_doubtful((6, 8), (96, 128), chosen=True), is_doubtful((6, 8), (128, 96), chosen=True)
        (False, True)
        >>> is_doubtful((4, 12), (96, 128), chosen=True)
        True
        >>> is_doubtful((4, 12), (96, 128), chosen=False)
        False
    """
    if len(size) < 2:
        return False
    (high, wide), (rows, columns) = size[-2:], grid[-2:]
    one_cell = max(high, wide)
    straight = abs(rows * wide - columns * high) <= one_cell
    turned = abs(rows * high - columns * wide) <= one_cell
    return not straight and (turned or chosen)


def grid_that_follows(
    inputs: tuple[Tensor, ...],
    which: int,
    look: Callable[[tuple[Tensor, ...]], Tensor],
    *,
    chosen: bool,
) -> Followed:
    """Compares the grid of a layer with others of as many positions.

    Args:
        inputs (tuple of Tensor): One sample of what the network takes, 1 x C x spatial each.
        which (int): The place of the input whose positions count.
        look (Callable): Gives the layer for inputs, 1 x K x grid.
        chosen (bool): Whether grids of another shape come into question; if not, the turned one.

    Returns:
        Followed: How well the grid follows the input, and the grid that does better.

    Examples::

        >>> image = torch.rand(1, 1, 8, 12)
        >>> def patches(inputs):
        ...     return inputs[0].unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
        >>> grid_that_follows((image,), 0, patches, chosen=True).other
        >>> def turned(inputs):
        ...     return patches(inputs).flatten(2).view(1, 1, 6, 4)
        >>> grid_that_follows((image,), 0, turned, chosen=True).other
        (4, 6)
    """
    size = inputs[which].shape[2:]
    axes = range(2, len(size) + 2)
    for (places,) in _mean_places(inputs, which, look, axes, _channels_first):
        grid = tuple(places.shape[1:])
        scores = {grid: _follows(places)}
        if chosen:
            for other in _grids(grid, size):
                scores.setdefault(other, _follows(places.reshape(len(size), *other)))
        else:
            turned = places.transpose(-1, -2)
            scores[tuple(turned.shape[1:])] = _follows(turned)
        judged = _judged(scores, grid, dict.fromkeys(scores, math.prod(grid)))
        if not judged.unclear:
            break
    return judged


def axes_that_follow(
    inputs: tuple[Tensor, ...], which: int, look: Callable[[tuple[Tensor, ...]], Tensor]
) -> Followed:
    """Asks along which axis the positions of a signal's layer lie, and of the input those.

    Args:
        inputs (tuple of Tensor): One sample of what the network takes, 1 x C x spatial each.
        which (int): The place of the input that counts, 1 x C x L.
        look (Callable): Gives the layer for inputs, 1 x K x positions.

    Returns:
        Followed: How well positions of the last axis follow the last of the input. The other
        reading is a pair: the axis of the layer that follows, and which of the input.

    Examples::

        >>> signal = torch.rand(1, 4, 16)
        >>> axes_that_follow((signal,), 0, lambda inputs: inputs[0].mT).other
        (1, 2)
        >>> axes_that_follow((signal.mT,), 0, lambda inputs: inputs[0]).other is None
        True
    """
    axes = [axis for axis in (1, 2) if inputs[which].shape[axis] > 1]
    for first, last in _mean_places(inputs, which, look, axes, _channels_first_and_last):
        # An input of one position along its last axis is followed by nothing there.
        scores: dict[tuple[int, ...], _Score] = {(2, 2): _Score(0.0, 0.0)}
        counts: dict[tuple[int, ...], int] = {(2, 2): first.shape[-1]}
        for layer_axis, places in ((2, first), (1, last)):
            for index, axis in enumerate(axes):
                scores[layer_axis, axis] = _follows(places[[index]])
                counts[layer_axis, axis] = places.shape[-1]
        judged = _judged(scores, (2, 2), counts)
        if not judged.unclear:
            break
    return judged


def order_that_follows(
    inputs: tuple[Tensor, ...], which: int, look: Callable[[tuple[Tensor, ...]], Tensor]
) -> Followed:
    """Asks whether the positions of a layer come after its channels, or before them.

    Args:
        inputs (tuple of Tensor): One sample of what the network takes, 1 x C x spatial each.
        which (int): The place of the input whose positions count.
        look (Callable): Gives the layer for inputs, 1 x K x spatial with at least two dimensions.

    Returns:
        Followed: How well they follow with the channels first. The other reading is the axis of the
        channels, the last.

    Examples::

        >>> image = torch.rand(1, 3, 8, 8)
        >>> order_that_follows((image,), 0, lambda inputs: inputs[0].movedim(1, -1)).other
        (3,)
        >>> order_that_follows((image,), 0, lambda inputs: inputs[0]).other is None
        True
    """
    axes = range(2, inputs[which].dim())
    for first, last in _mean_places(inputs, which, look, axes, _channels_first_and_last):
        readings: dict[tuple[int, ...], Tensor] = {(1,): first, (axes[-1],): last}
        scores = {reading: _follows(places) for reading, places in readings.items()}
        counts = {reading: places[0].numel() for reading, places in readings.items()}
        judged = _judged(scores, (1,), counts)
        if not judged.unclear:
            break
    return judged


def inputs_that_lie_elsewhere(
    inputs: tuple[Tensor, ...], asked: Sequence[int], look: Callable[[tuple[Tensor, ...]], Tensor]
) -> list[int]:
    """Asks of several inputs over which of them the positions of a layer do not lie.

    An image that is averaged, and scales the channels of another, moves all positions alike.

    Args:
        inputs (tuple of Tensor): One sample of what the network takes, 1 x C x spatial each.
        asked (sequence of int): Places of inputs with as many dimensions as the layer.
        look (Callable): Gives the layer for inputs, 1 x K x grid.

    Returns:
        list of int: Places of the inputs that no position follows, though another input is clearly
        followed; none where the layer has few positions, or the input moves none.

    Examples::

        >>> pair = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
        >>> inputs_that_lie_elsewhere(pair, [0, 1], lambda pair: pair[0] * pair[1].mean())
        [1]
        >>> inputs_that_lie_elsewhere(pair, [0, 1], lambda pair: pair[0] + pair[1])
        []
    """
    found = {which: _correlation(inputs, which, look) for which in asked}
    if not any(one > CLEAR for one in found.values()):
        return []
    return [which for which, one in found.items() if one < NOT_FOLLOWED]


def _correlation(
    inputs: tuple[Tensor, ...], which: int, look: Callable[[tuple[Tensor, ...]], Tensor]
) -> float:
    """How well positions follow one input, at least: NaN where too few are moved to tell."""
    axes = range(2, inputs[which].dim())
    for (places,) in _mean_places(inputs, which, look, axes, _channels_first):
        if fit(places).n_positions < TOO_FEW:
            return math.nan
        correlation = _follows(places).correlation
        if correlation > CLEAR:
            break
    return correlation


def _channels_first(squares: Tensor) -> list[Tensor]:
    return [squares.sum(0)]


def _channels_first_and_last(squares: Tensor) -> list[Tensor]:
    return [squares.sum(0), squares.sum(-1)]


def _mean_places(
    inputs: tuple[Tensor, ...],
    which: int,
    look: Callable[[tuple[Tensor, ...]], Tensor],
    axes: Sequence[int],
    read: Callable[[Tensor], list[Tensor]],
) -> Iterator[list[Tensor]]:
    """Where the positions of each reading look, on average: after one draw, two and four."""
    found: list[list[Tensor]] = []
    for draws in DRAWS[:3]:
        found += [_places(inputs, which, look, draw, axes, read) for draw in draws]
        yield [torch.stack(several).mean(0) for several in zip(*found, strict=True)]


def _places(
    inputs: tuple[Tensor, ...],
    which: int,
    look: Callable[[tuple[Tensor, ...]], Tensor],
    draw: int,
    axes: Sequence[int],
    read: Callable[[Tensor], list[Tensor]],
) -> list[Tensor]:
    """Where in the input, along some of its axes, each position of a reading looks: axes x grid."""
    counts = inputs[which]
    noise = torch.randn(counts.shape, generator=torch.Generator().manual_seed(draw + 1))
    spread = float(counts.float().std())
    large = spread > 1e-3 * float(counts.abs().max())
    noise = noise.to(counts) * (spread if large else 1.0)
    # A constant image would say little.
    base = counts if large else counts + noise.flip(-1)

    def values(one: Tensor) -> Tensor:
        value = look((*inputs[:which], one, *inputs[which + 1 :]))
        return value.detach().double().cpu()[0]

    before = values(base)
    energies: list[list[Tensor]] = []
    for axis in axes:
        side = counts.shape[axis]
        ramp = ((torch.arange(side) + 0.5) / side).to(counts)
        ramp = ramp.view([-1 if a == axis else 1 for a in range(counts.dim())])
        changes = [values(base + AMOUNT * noise * share) - before for share in (ramp, 1 - ramp)]
        pairs = zip(*(read(change.nan_to_num().square()) for change in changes), strict=True)
        energies.append([torch.stack(pair) for pair in pairs])
    return [centers(torch.stack(one)[None])[0] for one in zip(*energies, strict=True)]


class _Score(NamedTuple):
    """How well positions follow: the least along an axis of correlation and of slope."""

    correlation: float
    slope: float


def _follows(places: Tensor) -> _Score:
    """How positions follow the places that they look at, if those are on a grid.

    Where a grid has one position along an axis, places that differ along it speak against it.
    """
    found = fit(places)
    along = [one for one in found.correlation if not math.isnan(one)]
    slopes = [one for one in found.slope if not math.isnan(one)]
    correlation = min([*along, math.sqrt(found.explained)])
    return _Score(correlation, min(slopes, default=0.0))


def _judged(
    scores: dict[tuple[int, ...], _Score],
    given: tuple[int, ...],
    counts: dict[tuple[int, ...], int],
) -> Followed:
    """Whether another reading does far better than the given one, by the positions of each."""
    others = {
        reading: score
        for reading, score in scores.items()
        if reading != given
        and counts[reading] >= TOO_FEW
        and score.correlation > (FOLLOWED_BY_FEW if counts[reading] < FEW else FOLLOWED)
    }
    own = scores[given]
    best = max(others, key=others.__getitem__, default=None)
    # A few channels may be in line by chance, but do not go from one end of the input to the other.
    far_better = best is not None and (
        own.correlation < NOT_FOLLOWED or own.slope < others[best].slope / 3
    )
    return Followed(own.correlation, best if far_better else None)


def _grids(grid: tuple[int, ...], size: Sequence[int]) -> list[tuple[int, ...]]:
    """Grids of as many positions, those first whose patches are nearest to squares."""
    n = math.prod(grid)
    divisors = [side for side in range(1, n + 1) if n % side == 0]
    found = [
        (*some, n // math.prod(some))
        for some in itertools.product(divisors, repeat=len(grid) - 1)
        if n % math.prod(some) == 0
    ]
    return [one for one in found if all(a <= b for a, b in zip(one, size, strict=True))]
