"""Whether positions lie over the part of the input that they depend on.

For each position and axis the *centre* is the mean coordinate of its influences in the input,
0 at the beginning of the axis and 1 at its end. A grid is right where the centres follow it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from captum_groupcam.networks._layouts import Layout

__all__ = ["CLEAR", "DRAWS", "Fit", "Judgement", "centers", "choose", "fit"]

#: What holds for a grid whose positions lie where they should, however much they see beside that.
LEAST_CORRELATION = 0.6
LEAST_EXPLAINED = 0.35
#: Of what can be explained: what the centres of several draws agree in.
LEAST_SHARE = 0.75
#: A grid of few positions fits by chance more easily, and noise hides it more easily.
FEW, VERY_FEW = 16, 8
LEAST_CORRELATION_OF_FEW, LEAST_CORRELATION_OF_VERY_FEW = 0.75, 0.9
LEAST_SLOPE = 0.1  # of very few tokens, or of three positions at most
DRAWS = ([0], [1], [2, 3], [*range(4, 16)])
#: A padded input stretches the grid, a cropped one shifts it.
MOST_SLOPE = 1.3
MOST_SHIFT = 0.25
#: Where one draw is enough.
CLEAR = 0.8
#: Variance along an axis of one position, as a share of that along others, and of that of a draw.
LOST, AGREED = 0.05, 0.7
#: Centres that differ by less do not differ.
SAME = 1e-5
#: A second grid that explains more than this share of what the first does fits as well.
AS_GOOD = 0.95


class Fit(NamedTuple):
    """How well centres follow a grid.

    Attributes:
        explained (float): Share of the variance of the centres, over all axes.
        correlation (tuple of float): Along each axis of more than one position; NaN along others.
        slope (tuple of float): Of the centre over the coordinate of the position.
        shift (tuple of float): Of the centre of a position in the middle.
        n_positions (int): Positions that depend on the input.
    """

    explained: float
    correlation: tuple[float, ...]
    slope: tuple[float, ...]
    shift: tuple[float, ...]
    n_positions: int


class Judgement(NamedTuple):
    """Which layout fits, or why none does.

    Attributes:
        layout (Layout or None): The one that fits.
        fit (Fit or None): How well the best fits.
        problem (str): Why none is chosen.
        clear (bool): Whether more draws would change nothing.
    """

    layout: Layout | None
    fit: Fit | None
    problem: str
    clear: bool


def centers(energies: Tensor) -> Tensor:
    """The centre of the influences of each position.

    Args:
        energies (Tensor): draws x axes x 2 x positions: the sum of squares of what a position
            changes by when the input is changed by noise, the more the further along the axis, and
            by the same noise, the more the nearer to its beginning.

    Returns:
        Tensor: draws x axes x positions; NaN for those that do not change.
    """
    changes = energies.double().sqrt()
    changes = torch.where(changes > 1e-6 * changes.amax(), changes, 0)
    return changes[:, :, 0] / changes.sum(2)


def fit(found: Tensor) -> Fit:
    """How well the centres of a grid's positions follow it.

    Args:
        found (Tensor): axes x grid; the axes are those of the grid.

    Returns:
        Fit: A linear regression along each axis.
    """
    known = found.isfinite().all(0)
    n_positions = int(known.sum())
    nothing = (math.nan,) * len(found)
    if n_positions < 2:
        return Fit(0.0, nothing, nothing, nothing, n_positions)
    explained = total = 0.0
    correlation, slope, shift = [], [], []
    for axis, side in enumerate(found.shape[1:]):
        shape = [side if other == axis else 1 for other in range(len(found))]
        expected = ((torch.arange(side, dtype=found.dtype) + 0.5) / side).view(shape)
        where = expected.expand_as(known)[known]
        center = found[axis][known]
        x, y = where - where.mean(), center - center.mean()
        xx, yy, xy = float(x @ x), float(y @ y), float(x @ y)
        total += yy
        if xx == 0:  # one position along this axis
            correlation.append(math.nan)
            slope.append(math.nan)
            shift.append(math.nan)
            continue
        along = xy / xx
        if along > 0:
            explained += along * xy
        correlation.append(xy / math.sqrt(xx * yy) if yy > 0 else 0.0)
        slope.append(along)
        shift.append(float(center.mean()) + along * (0.5 - float(where.mean())) - 0.5)
    share = explained / total if total > 0 else 0.0
    return Fit(share, tuple(correlation), tuple(slope), tuple(shift), n_positions)


def choose(found: Tensor, layouts: Iterable[Layout]) -> Judgement:
    """Chooses the layout that the centres follow.

    Args:
        found (Tensor): draws x axes x positions of the form, as :func:`centers` gives them.
        layouts (iterable of Layout): Of one form, what may be.

    Returns:
        Judgement: The one that fits, or why none does.
    """
    mean = found.mean(0)
    fits = [(fit(layout.arrange(mean)), layout) for layout in layouts]
    if not fits:
        return Judgement(None, None, "no grid of patches has as many", True)
    fits.sort(key=lambda one: -one[0].explained)
    # Of grids of which one is a part of the other the larger: its other tokens lie in line, too.
    rivals = [fits[0], *(one for one in fits[1:] if _as_good(one[0], fits[0][0]))]
    best, layout = max(rivals, key=lambda one: (math.prod(one[1].grid), one[1].traced))
    arranged = layout.arrange(found)
    problem = _problem(best, arranged, tokens=layout.form.tokens)
    if not problem:
        others = [
            other
            for _, other in rivals
            if math.prod(other.grid) == math.prod(layout.grid)
            and other.traced == layout.traced
            and other != layout
        ]
        if others:
            problem = f"its positions may lie on {layout} or {others[0]}"
        elif _breaks(arranged.mean(0), layout, mean):
            problem = f"its positions do not lie on one grid: parts of {layout} are shifted"
        elif lost := _lost_axis(arranged, best, layout):
            problem = lost
    certain = min([best.explained, *(c for c in best.correlation if not math.isnan(c))])
    hopeless = bool(problem) and best.explained < LEAST_EXPLAINED / 3 and best.n_positions > 30
    hopeless |= _same(found)
    few = arranged[0, 0].numel() <= FEW
    enough = sum(len(draws) for draws in (DRAWS if few else DRAWS[:3]))
    # What draws have in common, two tell.
    told = len(found) > 1 or not (layout.form.tokens and 1 in layout.grid)
    clear = hopeless or len(found) >= enough or (told and not problem and certain > CLEAR)
    return Judgement(None if problem else layout, best, problem, clear)


def _problem(fit: Fit, found: Tensor, *, tokens: bool) -> str:
    """Why a grid does not fit; nothing if it does."""
    n = found[0, 0].numel()
    if fit.n_positions < (n if n <= 3 else max(3, n / 4)):
        return f"{n - fit.n_positions} of its {n} positions do not depend on the input"
    least = LEAST_CORRELATION_OF_FEW if n <= FEW else LEAST_CORRELATION
    if n <= VERY_FEW:
        least = LEAST_CORRELATION_OF_VERY_FEW
    axes = [axis for axis, c in enumerate(fit.correlation) if not math.isnan(c)]
    lost = min(fit.correlation[axis] for axis in axes) < least
    if n <= 3 or (tokens and n <= VERY_FEW):
        lost |= min(fit.slope[axis] for axis in axes) < LEAST_SLOPE
    if lost or fit.explained < max(LEAST_EXPLAINED, LEAST_SHARE * _agreement(found)):
        along = ", ".join(f"{c:.2f}" for c in fit.correlation)
        return (
            "its positions do not lie where the parts of the input are that they depend on "
            f"(correlation {along} on {_text(found.shape[2:])})"
        )
    if max(fit.slope[axis] for axis in axes) > MOST_SLOPE or _padded(found):
        return "its grid is larger than the input, as that of a padded one is"
    if max(abs(fit.shift[axis]) for axis in axes) > MOST_SHIFT:
        return "its grid is shifted against the input"
    return ""


def _lost_axis(arranged: Tensor, line: Fit, layout: Layout) -> str:
    """What to say if tokens differ along an axis on which their grid has one position.

    The steps of time of each patch may come one after the other, as if they were columns.
    """
    n_draws = len(arranged)
    if not layout.form.tokens or n_draws < 2:
        return ""
    draws = arranged.flatten(2)
    draws = draws[..., draws.isfinite().all(0).all(0)]
    draws = draws - draws.mean(-1, keepdim=True)
    products = torch.einsum("iap,jap->aij", draws, draws)
    own = products.diagonal(dim1=1, dim2=2).mean(1)
    common = (products.sum((1, 2)) / n_draws - own) / (n_draws - 1)
    most = max(float(common[axis]) for axis, slope in enumerate(line.slope) if slope == slope)
    for axis, side in enumerate(layout.grid):
        if side == 1 and common[axis] > max(LOST * most, AGREED * float(own[axis])):
            return f"its positions differ along axis {axis}, on which {layout} has one"
    return ""


def _same(found: Tensor) -> bool:
    """Whether all positions look at the same part of the input, or at none."""
    known = found[..., found.isfinite().all(0).all(0)]
    return known.shape[-1] == 0 or bool((known.amax(-1) - known.amin(-1)).amax() < SAME)


def _padded(found: Tensor) -> bool:
    """Whether the positions along one side of a grid depend on nothing."""
    known = found.isfinite().all(0).all(0)
    for axis, side in enumerate(known.shape):
        lines = known.movedim(axis, 0).reshape(side, -1).any(1)
        if side > 2 and not (lines[0] and lines[-1]):
            return True
    return False


def _as_good(other: Fit, best: Fit) -> bool:
    """Whether a grid fits as well as the best: neither by far less nor by far more unexplained."""
    unexplained = 1 - other.explained, 1 - best.explained
    return (
        other.explained > AS_GOOD * best.explained and unexplained[0] < 1.5 * unexplained[1] + 0.01
    )


def _agreement(found: Tensor) -> float:
    """Share of the variance of mean centres that draws of the noise have in common."""
    n_draws = len(found)
    if n_draws < 2:
        return 0.0
    known = found.isfinite().all(0).all(0)
    values = found[..., known]
    values = (values - values.mean(-1, keepdim=True)).flatten(1)
    products = values @ values.T
    variances = products.diagonal()
    between = products / (variances[:, None] * variances[None]).sqrt().clamp_min(1e-30)
    pairs = (between.sum() - between.diagonal().sum()) / (n_draws * (n_draws - 1))
    one = max(float(pairs), 0.0)
    return n_draws * one / (1 + (n_draws - 1) * one)  # Spearman and Brown


def _breaks(arranged: Tensor, layout: Layout, positions: Tensor) -> bool:
    """Whether some quarter of the tokens lies on the grid better if it is shifted by one or two."""
    if not layout.form.tokens or not layout.n_prefix + layout.n_suffix:
        return False
    n = math.prod(layout.grid)
    if n < 16:
        return False
    sides = torch.tensor(layout.grid, dtype=torch.double)
    where = torch.stack(
        torch.meshgrid(*(torch.arange(side) for side in layout.grid), indexing="ij")
    ).flatten(1)
    expected = (where + 0.5) / sides[:, None]
    flat = arranged.flatten(1)
    line = fit(arranged)
    usable = [axis for axis, c in enumerate(line.correlation) if not math.isnan(c)]
    n_tokens = positions.shape[-1]

    def miss(quarter: Tensor, by: int) -> float:
        tokens = quarter + layout.n_prefix + by
        inside = (tokens >= 0) & (tokens < n_tokens)
        tokens, places = tokens[inside], quarter[inside]
        total = 0.0
        for axis in usable:
            mean = float(flat[axis].nanmean())
            predicted = mean + line.slope[axis] * (expected[axis] - expected[axis].mean())
            total += float((positions[axis][tokens] - predicted[places]).square().nanmean())
        return total

    return any(
        min(miss(quarter, by) for by in (-2, -1, 1, 2)) < miss(quarter, 0)
        for quarter in torch.arange(n).chunk(4)
    )


def _text(grid: Iterable[int]) -> str:
    return " x ".join(map(str, grid))
