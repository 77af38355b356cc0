"""A metric that keeps the value of each sample."""

from __future__ import annotations

import warnings
from abc import ABC
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from captum_groupcam._captum import ForwardFunc
from captum_groupcam.masking.network import ScoreFunc, class_probability

__all__ = ["PerSampleMetric", "PerSampleNetworkMetric"]


class PerSampleMetric(Metric, ABC):
    """Keeps named values for each sample, and its id, through every form of reduction.

    Subclasses name their values in ``_values``, add them with ``_add`` and read them in
    ``compute`` with ``_rows``.
    """

    is_differentiable = False
    full_state_update = False
    #: Name and type of each value.
    _values: ClassVar[dict[str, torch.dtype]]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in self._types:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def per_sample(self) -> dict[str, Tensor]:
        """The value of each sample, for an interval of the mean or a paired comparison.

        In a distributed run it gathers the samples of all processes, so each of them must call it.

        Returns:
            dict of str to Tensor: Values of N samples by name, and ``ids``: samples without an id
            (-1) in the order they came, the others in the order of their ids, each once.

        Raises:
            ValueError: If there is no sample.
        """
        with self.sync_context(should_sync=self.sync_on_compute):
            return self._rows()

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the samples of all processes; one without samples takes part, too."""
        for name, dtype in self._types.items():
            # torchmetrics would fill in for an empty list, but with floats whatever the type.
            if not getattr(self, name):
                getattr(self, name).append(torch.empty(0, dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)

    @property
    def _types(self) -> dict[str, torch.dtype]:
        return {"ids": torch.int64, **self._values}

    def _add(self, ids: Any, **values: Tensor) -> None:
        n_samples = len(next(iter(values.values())))
        ids = torch.full((n_samples,), -1) if ids is None else torch.as_tensor(ids)
        if ids.shape != (n_samples,) or ids.is_floating_point():
            raise ValueError(
                f"Expected one integer id for each of {n_samples} samples, got {ids.dtype} of "
                f"shape {tuple(ids.shape)}."
            )
        for name, value in {"ids": ids, **values}.items():
            getattr(self, name).append(value.to(self.device, self._types[name]))

    def _joined(self, name: str) -> Tensor:
        state = getattr(self, name)  # a list of tensors; one tensor after a sync
        if isinstance(state, Tensor):
            return state
        return torch.cat([torch.empty(0, dtype=self._types[name], device=self.device), *state])

    def _rows(self) -> dict[str, Tensor]:
        """All samples, those that came more than once a single time."""
        rows = {name: self._joined(name) for name in self._types}
        ids = rows["ids"]
        if not len(ids):
            raise ValueError("There is no sample: call update first.")
        order = ids.argsort(stable=True)
        ids = ids[order]
        again = torch.zeros_like(ids, dtype=torch.bool)
        again[1:] = (ids[1:] == ids[:-1]) & (ids[1:] >= 0)
        for name, value in rows.items():
            # The same sample in another batch may differ by rounding, its label may not.
            slack = 0.01 if value.is_floating_point() else 0.0
            ordered = value[order].float()
            differs = again[1:] & ~torch.isclose(ordered[1:], ordered[:-1], rtol=slack, atol=slack)
            if differs.any():
                which = sorted(set(ids[1:][differs].tolist()))
                warnings.warn(
                    f"Samples with the ids {which} came again with another value of {name!r}; the "
                    "first one counts. An id names a sample: an image together with its class.",
                    stacklevel=3,
                )
        return {name: value[order[~again]] for name, value in rows.items()}


class PerSampleNetworkMetric(PerSampleMetric):
    """A :class:`PerSampleMetric` that asks the network; ``compute`` returns means."""

    def __init__(
        self,
        forward_func: ForwardFunc,
        *,
        score_func: ScoreFunc = class_probability,
        internal_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Wrapped, or a module would become a submodule of the metric.
        self._network = _Shared(forward_func)
        self.score_func = score_func
        self.internal_batch_size = internal_batch_size

    def compute(self) -> dict[str, Tensor]:
        """Means over the samples, by name."""
        rows = self._rows()
        return {name: rows[name].mean() for name in self._values}


@dataclass(frozen=True)
class _Shared:
    """The caller's forward function, which clones of a metric have in common."""

    forward_func: ForwardFunc

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self
