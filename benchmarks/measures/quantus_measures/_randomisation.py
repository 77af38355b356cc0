"""Quantus's measures of randomisation: whether the map changes with what it explains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import quantus
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from ..explained import Explained
from ._calls import (
    NO_SCORE,
    Array,
    finite_scores,
    make_metric,
    one_by_one,
    run_metric,
    scaled,
    spearman,
)


def mprt(samples: Explained, *, layer_order: str) -> Tensor:
    """Rank correlation of the map with that of the network with all parameters drawn anew.

    Modules draw by their ``reset_parameters``. A randomised network often has nothing to show: a
    constant map resembles no other, and counts as correlation 0.
    """

    def similarity(a: Array, b: Array, batched: bool) -> Array:
        return np.zeros(1) if np.isnan(b).any() else spearman(a, b, batched)

    def metric(sample: Explained) -> Any:
        return make_metric(
            quantus.MPRT,
            similarity_func=similarity,
            layer_order=layer_order,
            seed=sample.seed,
            return_last_correlation=True,
            skip_layers=True,
        )

    values = [_run_explain(metric(one[0]), *one)[0] for one in one_by_one(samples)]
    return finite_scores(metric(samples), values, NO_SCORE)


def random_logit(samples: Explained) -> Tensor:
    """SSIM of the map with the map for another class, drawn at random.

    Of the maps as images; Quantus alone would compare their rows strung together.

    Raises:
        ValueError: If the model has only one class.
    """
    with torch.no_grad():
        n_classes = samples.model(samples.inputs[:1]).shape[1]
    if n_classes < 2:
        raise ValueError("RandomLogit explains another class, but the model has only one.")
    shape = tuple(samples.inputs.shape[2:])

    def similarity(a: Array, b: Array, batched: bool) -> list[float]:  # noqa: ARG001
        ours, other = a.reshape(shape), np.nan_to_num(b).reshape(shape)
        data_range = np.ptp(np.stack([ours, other]))
        return [float(structural_similarity(ours, other, data_range=data_range))]

    def metric(sample: Explained) -> Any:
        return make_metric(
            quantus.RandomLogit, similarity_func=similarity, num_classes=n_classes, seed=sample.seed
        )

    values = [_run_explain(metric(one[0]), *one)[0] for one in one_by_one(samples)]
    return finite_scores(metric(samples), values, NO_SCORE)


def _run_explain(metric: Any, sample: Explained, maps: Array) -> Any:
    """Runs a metric that explains again, with the user's function as Quantus calls it.

    Quantus rejects constant maps; NaN stands for one, so that the similarity can deal with it.
    """

    def explain(model: nn.Module, inputs: Array, targets: Array, **_: Any) -> Array:
        assert sample.explain is not None
        again = replace(
            sample,
            model=model,
            inputs=torch.from_numpy(inputs).to(sample.inputs),
            targets=torch.from_numpy(targets).to(sample.targets),
        )
        again = replace(again, maps=sample.explain(model, again.inputs, again.targets))
        explained = scaled(again.maps)
        return explained if np.ptp(explained) else np.full_like(explained, np.nan)

    return run_metric(metric, sample, maps, explain_func=explain)
