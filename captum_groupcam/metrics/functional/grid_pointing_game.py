"""The grid pointing game: which of several images does the map find?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_groupcam.metrics.functional._maps import check_maps
from captum_groupcam.metrics.functional.localisation import LocalisationResult, localisation

__all__ = ["grid_cells", "grid_pointing_game"]


def grid_cells(height: int, width: int, n: int = 2) -> list[tuple[int, int, int, int]]:
    """The cells of a grid, row by row, as in Böhle et al. 2021, arXiv 2104.00032.

    Args:
        height (int): Height of the mosaic in pixels.
        width (int): Its width.
        n (int, optional): Cells a side. Default: 2.

    Returns:
        list of tuple of int: Boxes (x0, y0, x1, y1), ends exclusive, n * n of them, that cover the
        mosaic; where `n` does not divide its size they differ by a pixel.

    Raises:
        ValueError: If there are fewer than two cells a side, or more than pixels.

    Examples::

        >>> grid_cells(4, 5)
        [(0, 0, 2, 2), (2, 0, 5, 2), (0, 2, 2, 4), (2, 2, 5, 4)]
    """
    if not 2 <= n <= min(height, width):
        raise ValueError(
            f"A grid has at least 2 cells a side, and at most one a pixel ({height} x {width}); "
            f"got {n}."
        )
    rows, columns = ([index * size // n for index in range(n + 1)] for size in (height, width))
    return [(columns[j], rows[i], columns[j + 1], rows[i + 1]) for i in range(n) for j in range(n)]


def grid_pointing_game(
    maps: Tensor, cells: Tensor | Sequence[int], *, n: int = 2
) -> LocalisationResult:
    """Grid pointing game (Böhle et al., CVPR 2021, arXiv 2104.00032; Rao et al., CVPR 2022).

    A mosaic of n x n images of different classes is explained for the class of one of them. The
    published score is ``share``, the share of the positive part of the map in the right cell: 1 /
    n**2 by chance. Any sharpening of a map raises it, so :func:`localisation` gives beside it what
    the order of the pixels alone decides.

    Args:
        maps (Tensor): Maps of the mosaics, N x 1 x H x W or N x H x W.
        cells (Tensor or sequence of int): The cell whose class was explained, counted row by row
            from 0, N.
        n (int, optional): Cells a side. Default: 2.

    Returns:
        LocalisationResult: Values, one a sample.

    Raises:
        ValueError: If there is not one cell of the grid for each map, or as :func:`localisation`.

    Examples::

        >>> import torch
        >>> maps = torch.zeros(1, 4, 4)
        >>> maps[:, :2, 2:] = 1.0  # the upper right one
        >>> [value.item() for value in grid_pointing_game(maps, [1])]
        [1.0, 1.0, 1.0, 1.0]
        >>> [round(value.item(), 3) for value in grid_pointing_game(maps, [0])]
        [0.333, 0.25, 0.0, 0.0]
    """
    maps = check_maps(maps, 2)
    boxes = grid_cells(maps.shape[2], maps.shape[3], n)
    cells = torch.as_tensor(cells)
    fits = cells.shape == maps.shape[:1] and not cells.is_floating_point()
    if not fits or cells.lt(0).any() or cells.ge(n * n).any():
        raise ValueError(
            f"Expected a cell from 0 to {n * n - 1} for each of {len(maps)} maps, got "
            f"{cells.tolist()}."
        )
    masks = torch.zeros_like(maps, dtype=torch.bool)
    for sample, cell in enumerate(cells.tolist()):
        x0, y0, x1, y1 = boxes[cell]
        masks[sample, :, y0:y1, x0:x1] = True
    return localisation(maps, masks)
