"""Localisation where the evidence is known, and the grid pointing game, as metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from captum_groupcam.metrics._per_sample import PerSampleMetric
from captum_groupcam.metrics.functional import (
    LocalisationResult,
    grid_pointing_game,
    localisation,
)

__all__ = ["GridPointingGame", "Localisation"]


class _LocalisationMetric(PerSampleMetric):
    """Keeps what localisation gives; ``compute`` returns means."""

    higher_is_better = True
    _values: ClassVar = dict.fromkeys(LocalisationResult._fields, torch.float32)

    def compute(self) -> dict[str, Tensor]:
        """Means over the samples, by name."""
        rows = self._rows()
        return {name: rows[name].mean() for name in self._values}


class Localisation(_LocalisationMetric):
    """How well maps find evidence whose place is known: two areas, hits, and the share of the map.

    :func:`~captum_groupcam.metrics.functional.localisation` over many batches. ``compute`` returns
    the means, ``per_sample`` the value of each sample.

    Args:
        **kwargs (Any): As in :class:`torchmetrics.Metric`.

    Examples::

        >>> import torch
        >>> from captum_groupcam.metrics import Localisation
        >>> metric = Localisation()
        >>> masks = torch.tensor([[[True, True], [False, False]]])
        >>> metric.update(torch.tensor([[[0.9, 0.2], [0.4, 0.1]]]), masks)
        >>> metric.compute()["roc_auc"]
        tensor(0.7500)
    """

    def update(self, maps: Tensor, masks: Tensor, *, ids: Tensor | list[int] | None = None) -> None:
        """Adds samples.

        Args:
            maps (Tensor): N x 1 x H x W or N x H x W.
            masks (Tensor): The evidence, of the maps' size, true or nonzero.
            ids (Tensor or list of int, optional): N integers, at least 0, that name each sample
                (an image with its class) in all processes: one that comes again counts once.
                Default: None, every sample counts.
        """
        self._add(ids, **localisation(maps, masks)._asdict())


class GridPointingGame(_LocalisationMetric):
    """The grid pointing game: two areas, hits, and the published share of the map.

    :func:`~captum_groupcam.metrics.functional.grid_pointing_game` over many batches. ``compute``
    returns the means, ``per_sample`` the value of each sample.

    Args:
        n (int, optional): Cells a side. Default: 2.
        **kwargs (Any): As in :class:`torchmetrics.Metric`.

    Examples::

        >>> import torch
        >>> from captum_groupcam.metrics import GridPointingGame
        >>> metric = GridPointingGame(n=2)
        >>> maps = torch.zeros(1, 4, 4)
        >>> maps[:, :2, :2] = 1.0
        >>> metric.update(maps, [0])
        >>> metric.compute()["share"]
        tensor(1.)
    """

    def __init__(self, n: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = n

    def update(
        self,
        maps: Tensor,
        cells: Tensor | Sequence[int],
        *,
        ids: Tensor | list[int] | None = None,
    ) -> None:
        """Adds samples.

        Args:
            maps (Tensor): Maps of the mosaics, N x 1 x H x W or N x H x W.
            cells (Tensor or sequence of int): The cell whose class was explained, counted row by
                row from 0, N.
            ids (Tensor or list of int, optional): N integers, at least 0, that name each sample
                (a mosaic with its cell) in all processes: one that comes again counts once.
                Default: None, every sample counts.
        """
        self._add(ids, **grid_pointing_game(maps, cells, n=self.n)._asdict())
