"""The pointing game as a metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from captum_groupcam.metrics._per_sample import PerSampleMetric
from captum_groupcam.metrics.functional import pointing_game
from captum_groupcam.metrics.functional._boxes import ImageSize

__all__ = ["PointingGame"]


class PointingGame(PerSampleMetric):
    """Accuracy of the pointing game, by class and over all.

    :func:`~captum_groupcam.metrics.functional.pointing_game` over many batches. ``compute``
    returns accuracies, ``per_class`` that of each class, ``per_sample`` the hit of each sample with
    its label and whether it is difficult. A sample is an image together with one class that it
    shows.

    Args:
        tolerance (float, optional): In pixels of the annotated image; 0 asks for the object
            itself. Default: 15.0.
        **kwargs (Any): As in :class:`torchmetrics.Metric`.

    Examples::

        >>> import torch
        >>> from captum_groupcam.metrics import PointingGame
        >>> maps = torch.zeros(3, 10, 10)
        >>> maps[:, 0, 0] = 1.0
        >>> near, far = torch.tensor([[0, 0, 4, 4]]), torch.tensor([[5, 5, 9, 9]])
        >>> metric = PointingGame(tolerance=0)
        >>> metric.update(maps, labels=[7, 7, 2], boxes=[near, far, near])
        >>> metric.compute()
        {'accuracy': tensor(0.6667), 'mean_class_accuracy': tensor(0.7500)}
        >>> metric.per_class()
        {2: 1.0, 7: 0.5}
    """

    higher_is_better = True
    _values: ClassVar = {"hits": torch.float32, "labels": torch.int64, "difficult": torch.bool}

    def __init__(self, tolerance: float = 15.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tolerance = tolerance

    def update(
        self,
        maps: Tensor,
        labels: Tensor | Sequence[int],
        *,
        boxes: Sequence[Tensor] | None = None,
        masks: Tensor | Sequence[Tensor] | None = None,
        image_size: ImageSize | None = None,
        difficult: Tensor | Sequence[bool] | None = None,
        ids: Tensor | list[int] | None = None,
    ) -> None:
        """Adds samples.

        Args:
            maps (Tensor): N x 1 x H x W or N x H x W.
            labels (Tensor or sequence of int): The class of each sample, N.
            boxes (sequence of Tensor, optional): For each sample B_i x 4 boxes (x0, y0, x1, y1) of
                its class, ends exclusive. Default: None.
            masks (Tensor or sequence of Tensor, optional): Instead of boxes, N x H' x W' or a list
                of H_i x W_i, nonzero on the object. Default: None.
            image_size (sequence of int or Tensor, optional): Height and width of the image that
                the boxes belong to (2 or N x 2). Default: None, the size of the maps.
            difficult (Tensor or sequence of bool, optional): Whether each sample belongs to the
                difficult subset, N. Default: None, no sample does.
            ids (Tensor or list of int, optional): N integers, at least 0, that name each sample
                (an image with its class) in all processes: one that comes again counts once.
                Default: None, every sample counts.

        Raises:
            ValueError: If there is not one integer label, flag and id for each sample, or as
                :func:`~captum_groupcam.metrics.functional.pointing_game`.
        """
        hits = pointing_game(
            maps, boxes=boxes, masks=masks, image_size=image_size, tolerance=self.tolerance
        )
        labels = torch.as_tensor(labels)
        flags = torch.zeros(len(hits)) if difficult is None else torch.as_tensor(difficult)
        if labels.shape != hits.shape or labels.is_floating_point() or flags.shape != hits.shape:
            raise ValueError(
                f"Expected an integer label, and a flag if difficult is given, for each of "
                f"{len(hits)} samples; got labels of shape {tuple(labels.shape)}, {labels.dtype}, "
                f"and flags of shape {tuple(flags.shape)}."
            )
        self._add(ids, hits=hits, labels=labels, difficult=flags)

    def compute(self) -> dict[str, Tensor]:
        """Accuracies in [0, 1].

        Returns:
            dict of str to Tensor: Scalars: ``accuracy`` over all samples, and
            ``mean_class_accuracy``, the mean over the classes that occur. The same with the prefix
            ``difficult_`` if a sample is difficult.
        """
        rows = self._rows()
        result = _accuracies(rows["hits"], rows["labels"])
        if rows["difficult"].any():
            subset = _accuracies(*(rows[name][rows["difficult"]] for name in ("hits", "labels")))
            result.update({f"difficult_{name}": value for name, value in subset.items()})
        return result

    def per_class(self, *, difficult: bool = False) -> dict[int, float]:
        """The accuracy of each class that occurs, by its label.

        In a distributed run it gathers the samples of all processes, so each of them must call it.

        Args:
            difficult (bool, optional): Whether only difficult samples count. Default: False.

        Returns:
            dict of int to float: Label to accuracy in [0, 1].
        """
        rows = self.per_sample()
        counted = rows["difficult"] if difficult else torch.ones_like(rows["difficult"])
        classes, accuracy = _by_class(rows["hits"][counted], rows["labels"][counted])
        return dict(zip(classes.tolist(), accuracy.tolist(), strict=True))


def _by_class(hits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The C labels that occur and the accuracy of each."""
    classes, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    return classes, hits.new_zeros(len(classes)).index_add_(0, index, hits) / counts


def _accuracies(hits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    _, by_class = _by_class(hits, labels)
    return {"accuracy": hits.mean(), "mean_class_accuracy": by_class.mean()}
