"""Average drop and increase in confidence as a metric."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from captum_groupcam._captum import TargetType
from captum_groupcam.metrics._per_sample import PerSampleNetworkMetric
from captum_groupcam.metrics.functional import average_drop

__all__ = ["AverageDrop"]


class AverageDrop(PerSampleNetworkMetric):
    """Average drop and increase in confidence of maps, in percent.

    :func:`~captum_groupcam.metrics.functional.average_drop` over many batches. ``compute`` returns
    the means, ``per_sample`` the value of each sample.

    Args:
        forward_func (Callable): The network or any modification of its forward function. It stays
            the caller's: its parameters and its mode are not the metric's, and ``to`` does not
            move it.
        score_func (Callable, optional): Turns the network's output into scores, which must not be
            negative. Default: softmax over dimension 1.
        internal_batch_size (int, optional): Images of one forward pass. Default: None,
            :data:`~captum_groupcam.masking.network.DEFAULT_BATCH_SIZE`.
        **kwargs (Any): As in :class:`torchmetrics.Metric`.

    Examples::

        >>> import torch
        >>> from captum_groupcam.metrics import AverageDrop
        >>> metric = AverageDrop(lambda x: x.sum((1, 2, 3)))
        >>> metric.update(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[[3.0, 1.0]]]]))
        >>> metric.compute()
        {'average_drop': tensor(25.), 'increase_in_confidence': tensor(0.)}
    """

    _values: ClassVar = dict.fromkeys(("average_drop", "increase_in_confidence"), torch.float32)

    def update(
        self,
        maps: Tensor,
        inputs: Tensor,
        target: TargetType = None,
        additional_forward_args: Any = None,
        *,
        ids: Tensor | list[int] | None = None,
    ) -> None:
        """Adds samples.

        Args:
            maps (Tensor): N x 1 x spatial or N x spatial, of the inputs' spatial size.
            inputs (Tensor): N x C x spatial.
            target (int, tuple, Tensor, list or None, optional): As in Captum. Default: None.
            additional_forward_args (Any, optional): As in Captum. Default: None.
            ids (Tensor or list of int, optional): N integers, at least 0, that name each sample
                (an image with its class) in all processes: one that comes again counts once.
                Default: None, every sample counts.
        """
        result = average_drop(
            self._network.forward_func,
            maps,
            inputs,
            target,
            additional_forward_args,
            score_func=self.score_func,
            internal_batch_size=self.internal_batch_size,
        )
        self._add(ids, **result._asdict())
