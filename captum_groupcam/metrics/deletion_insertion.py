"""Deletion and insertion as a metric."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from captum_groupcam._captum import ForwardFunc, TargetType
from captum_groupcam.masking.network import ScoreFunc, class_probability
from captum_groupcam.metrics._per_sample import PerSampleNetworkMetric
from captum_groupcam.metrics.functional import DeletionInsertionProtocol, deletion_insertion

__all__ = ["DeletionInsertion"]


class DeletionInsertion(PerSampleNetworkMetric):
    """Deletion, insertion and over-all score of maps.

    :func:`~captum_groupcam.metrics.functional.deletion_insertion` over many batches. ``compute``
    returns the means, ``per_sample`` the value of each sample.

    Args:
        forward_func (Callable): The network or any modification of its forward function. It stays
            the caller's: its parameters and its mode are not the metric's, and ``to`` does not
            move it.
        protocol (DeletionInsertionProtocol or str, optional): The protocol, or the name of one in
            :data:`~captum_groupcam.metrics.functional.PRESETS`. Default: "paper".
        score_func (Callable, optional): Turns the network's output into scores. Default: softmax
            over dimension 1.
        seed (int, optional): Seed of the permutation that breaks ties. Default: 0.
        internal_batch_size (int, optional): Images of one forward pass. Default: None,
            :data:`~captum_groupcam.masking.network.DEFAULT_BATCH_SIZE`.
        **kwargs (Any): As in :class:`torchmetrics.Metric`.

    Examples::

        >>> import torch
        >>> from captum_groupcam.metrics import DeletionInsertion
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2, bias=False))
        >>> _ = torch.nn.init.constant_(model[1].weight, 0.1)
        >>> _ = model.eval()
        >>> metric = DeletionInsertion(model)
        >>> metric.update(torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4), target=1)
        >>> metric.compute()
        {'deletion': tensor(0.5000), 'insertion': tensor(0.5000), 'over_all': tensor(0.)}
        >>> metric.per_sample()["insertion"]
        tensor([0.5000, 0.5000, 0.5000])
    """

    _values: ClassVar = dict.fromkeys(("deletion", "insertion", "over_all"), torch.float32)

    def __init__(
        self,
        forward_func: ForwardFunc,
        protocol: DeletionInsertionProtocol | str = "paper",
        *,
        score_func: ScoreFunc = class_probability,
        seed: int = 0,
        internal_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            forward_func, score_func=score_func, internal_batch_size=internal_batch_size, **kwargs
        )
        self.protocol = protocol
        self.seed = seed

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
                (an image with its class) in all processes: one that comes again, as the padding of
                a ``DistributedSampler`` does, counts once. Default: None, every sample counts.
        """
        result = deletion_insertion(
            self._network.forward_func,
            maps,
            inputs,
            target,
            additional_forward_args,
            protocol=self.protocol,
            score_func=self.score_func,
            seed=self.seed,
            internal_batch_size=self.internal_batch_size,
        )
        self._add(ids, **{name: getattr(result, name) for name in self._values})
