"""Quantus's measures on finished maps: parameters spelled out, one float a sample, no surprises.

Written against Quantus 0.6.0, whose behaviour shapes this file:

* Its metrics normalise maps over the batch, correlate over the batch (SensitivityN) or average
  over it (ROAD). So each sample is a call of its own (Sufficiency excepted, which compares
  samples), on a map divided by its own largest absolute value, with ``normalise=False``.
* It draws from NumPy's and torch's global generators. They are seeded for the call and put back.
* A one-channel map is repeated over the input's channels: a *feature* is one channel of a pixel.
* It sorts with an unstable sort, so large flat areas of a map would be removed in an order that
  means nothing. Where a measure sorts, ties are broken by a seeded permutation.
* An empty mask scores NaN, in PointingGame even a hit; undefined correlations are NaN. Here they
  are errors.

Every function takes :class:`~benchmarks.explained.Explained` and returns N values.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import quantus
import torch
from numpy.typing import NDArray
from quantus.functions.perturb_func import noisy_linear_imputation
from quantus.helpers.model.pytorch_model import PyTorchModel
from scipy.stats import pearsonr, spearmanr
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from benchmarks.explained import Explained

Array: TypeAlias = NDArray[Any]

#: Samples in one forward pass of a measure that looks at the whole batch.
_CHUNK = 32
#: What Quantus and the libraries below it say on the way, each harmless or turned into an error
#: below; anything else is heard.
_EXPECTED_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    # a step that removes what was already gone: its effect is zero, which is right
    (r"The settings for perturbing input e\.g\., 'perturb_func' didn't cause", UserWarning),
    # NaN results, which raise
    (r"An input array is (nearly )?constant", RuntimeWarning),
    (r"No negative samples in y_true", UserWarning),
    # AttributionLocalisation divides by the size of x_batch[2:], and does not use the result
    (r"divide by zero encountered in divide", RuntimeWarning),
    (r"Ratio is smaller than max size", UserWarning),
    (r"`trapz` is deprecated", DeprecationWarning),
)


# --- shared ---------------------------------------------------------------------------------------


class _Scores(nn.Module):
    """The model as Quantus may see it.

    Quantus looks for softmax modules and rearranges the model around them. This one shows it no
    modules; it keeps the model out of ``nn.Module``'s registry, and applies the softmax itself.
    """

    def __init__(self, samples: Explained, softmax: bool) -> None:
        super().__init__()
        self.eval()
        self._held = (samples.model,)
        self._like = samples.inputs
        self._highest_target = int(samples.targets.max())
        self._softmax = softmax

    def forward(self, inputs: Tensor) -> Tensor:
        chunks = torch.split(inputs.to(self._like), _CHUNK)
        scores = torch.cat([self._held[0](chunk) for chunk in chunks]).float()
        if scores.dim() != 2 or scores.shape[1] <= self._highest_target:
            raise ValueError(
                f"Expected a model that returns N x classes with a class {self._highest_target}, "
                f"got {tuple(scores.shape)}."
            )
        if not scores.isfinite().all():  # an argmax would hide it
            raise ValueError("The model returned NaN or infinite scores.")
        return scores.softmax(-1) if self._softmax else scores


@contextmanager
def _isolated(samples: Explained) -> Iterator[None]:
    """Seeds the global generators that Quantus draws from, and afterwards puts them back."""
    # A seed reaches all devices.
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if initialized else ()
    numpy_state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices):
        torch.manual_seed(samples.seed)
        np.random.seed(samples.seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002


def _metric(kind: Any, **options: Any) -> Any:
    """A Quantus metric that takes maps as they are, unless told otherwise, and prints nothing."""
    defaults = {"abs": False, "normalise": False, "return_aggregate": False}
    return kind(**{**defaults, **options}, disable_warnings=True, display_progressbar=False)


def _run(
    metric: Any, samples: Explained, maps: Array, softmax: bool = False, **options: Any
) -> Any:
    """Calls a Quantus metric on samples (all in one batch) and returns what it returns."""
    sees_model = "explain_func" in options  # it explains again, with the real modules
    objects = samples.objects
    with warnings.catch_warnings(), _isolated(samples):
        for message, category in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message, category)
        try:
            return metric(
                model=samples.model if sees_model else _Scores(samples, softmax),
                x_batch=_to_numpy(samples.inputs.float()),
                y_batch=_to_numpy(samples.targets),
                a_batch=maps.copy(),
                s_batch=None if objects is None else _to_numpy(objects),
                channel_first=True,
                softmax=False,
                batch_size=len(samples),
                **options,
            )
        finally:
            # Quantus's cache would keep every model ever measured alive.
            PyTorchModel._get_last_softmax_layer_index.cache_clear()


def _to_numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy().copy()
    return array


def _one_by_one(samples: Explained, untie: bool = False) -> Iterator[tuple[Explained, Array]]:
    """Every sample as a batch of its own, with its map as Quantus gets it."""
    _reject_useless(samples.maps)
    for index in range(len(samples)):
        sample = samples.sample(index)
        maps = _scaled(sample.maps)
        yield sample, _untied(maps, samples.seed) if untie else maps


def _finite(metric: Any, values: Any, undefined: str) -> Tensor:
    scores = torch.as_tensor(np.asarray(values, dtype=np.float64))
    wrong = (~scores.isfinite()).nonzero().flatten()
    if len(wrong):
        name = type(metric).__name__
        raise ValueError(f"Quantus's {name} is undefined for sample {wrong.tolist()}: {undefined}.")
    return scores


def _reject_useless(maps: Tensor) -> None:
    flat = maps.flatten(1)
    constant = (flat.amax(1) == flat.amin(1)).nonzero().flatten()
    if len(constant):
        raise ValueError(
            f"Sample {constant.tolist()} has a constant map, which ranks nothing: Quantus has no "
            "measure for it."
        )
    negative = (flat.amax(1) < 0).nonzero().flatten()
    if len(negative):
        raise ValueError(
            f"Sample {negative.tolist()} has only negative values in its map: Quantus wants large "
            "values where evidence for the class is."
        )


def _scaled(maps: Tensor) -> Array:
    """Maps in double precision, each divided by its largest absolute value."""
    array = _to_numpy(maps.double())
    largest = np.abs(array).max(axis=(1, 2, 3), keepdims=True)
    scaled: Array = array / np.where(largest == 0, 1, largest)
    return scaled


def _untied(maps: Array, seed: int) -> Array:
    """Breaks ties by a seeded permutation: adds ranks that are too small to matter otherwise.

    Values closer than a billionth of the map's maximum count as ties.
    """
    ranks = np.random.default_rng(seed).permutation(maps[0].size)
    return maps + 1e-9 * (ranks / ranks.size).reshape(maps.shape[1:])


def _area(curve: Array) -> float:
    """Area under a curve over equal steps from 0 to 1 (trapezoid)."""
    values = np.asarray(curve, dtype=np.float64)
    return float((values[1:] + values[:-1]).mean() / 2)


def _pixels(samples: Explained) -> int:
    return samples.inputs[0, 0].numel()


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of a number that is not above a limit."""
    return next(d for d in range(min(number, at_most), 0, -1) if number % d == 0)


def features_in_step(shape: Sequence[int], steps: int) -> int:
    """Features that a step removes, for inputs of shape (..., H, W).

    As many steps as asked for, or a few less, would remove one channel, since Quantus wants the
    number to divide that of the pixels; C times as many remove all.
    """
    pixels = shape[-2] * shape[-1]
    return pixels // largest_divisor(pixels, steps)


def patch_size(shape: Sequence[int], patches: int) -> int:
    """Side of square patches of which about `patches` fit along the shorter side."""
    return math.ceil(min(shape[-2:]) / patches)


def dividing_patch_size(shape: Sequence[int], patches: int) -> int:
    """The same where patches must divide both sides."""
    side = math.gcd(*shape[-2:])
    return side // largest_divisor(side, patches)


# --- faithfulness ---------------------------------------------------------------------------------

_NO_RESPONSE = "the network's score is the same at every step, so there is nothing to correlate"
_NO_SCORE = "the network's score is NaN or infinite"


def faithfulness_correlation(
    samples: Explained, *, nr_runs: int, subset_size: int, perturb_baseline: str
) -> Tensor:
    """Correlates the map's sum over random features with the drop of the logit without them.

    Of `subset_size` features, but at most a quarter of the number of pixels.
    """
    metric = _metric(
        quantus.FaithfulnessCorrelation,
        nr_runs=nr_runs,
        subset_size=min(subset_size, _pixels(samples) // 4),
        perturb_baseline=perturb_baseline,
    )
    values = [_run(metric, *one)[0] for one in _one_by_one(samples)]
    return _finite(metric, values, _NO_RESPONSE)


def faithfulness_estimate(samples: Explained, *, steps: int, perturb_baseline: str) -> Tensor:
    """Correlates the map's sum over a step's features with the drop of the logit without them."""
    metric = _metric(
        quantus.FaithfulnessEstimate,
        features_in_step=features_in_step(samples.inputs.shape, steps),
        perturb_baseline=perturb_baseline,
    )
    values = [_run(metric, *one)[0] for one in _one_by_one(samples, untie=True)]
    return _finite(metric, values, _NO_RESPONSE)


def monotonicity_correlation(
    samples: Explained, *, steps: int, nr_samples: int, perturb_baseline: str
) -> Tensor:
    """Rank-correlates abs(map) over a step's features with the spread of p(class) over values.

    Steps of equal sums share their rank, so ties stay ties here.
    """
    metric = _metric(
        quantus.MonotonicityCorrelation,
        similarity_func=_spearman,  # Quantus's fails on one sample that is constant
        nr_samples=nr_samples,
        features_in_step=features_in_step(samples.inputs.shape, steps),
        perturb_baseline=perturb_baseline,
        abs=True,
    )
    values = [_run(metric, *one, softmax=True)[0] for one in _one_by_one(samples)]
    return _finite(metric, values, _NO_RESPONSE)


def _spearman(a: Array, b: Array, batched: bool) -> Array:  # noqa: ARG001
    return np.array([spearmanr(a[0], b[0])[0]])


def pixel_flipping(samples: Explained, *, steps: int, perturb_baseline: str) -> Tensor:
    """Area under p(class) while features are removed, most relevant first."""
    metric = _metric(
        quantus.PixelFlipping,
        features_in_step=features_in_step(samples.inputs.shape, steps),
        perturb_baseline=perturb_baseline,
    )
    curves = [_run(metric, *one, softmax=True)[0] for one in _one_by_one(samples, untie=True)]
    return _finite(metric, [_area(curve) for curve in curves], _NO_SCORE)


def region_perturbation(
    samples: Explained, *, patches: int, regions_evaluation: int, perturb_baseline: str
) -> Tensor:
    """AOPC: mean drop of p(class) while patches are removed, most relevant first.

    Quantus returns the drops, of which high ones are good, though it labels them "lower".
    """
    metric = _metric(
        quantus.RegionPerturbation,
        patch_size=patch_size(samples.inputs.shape, patches),
        regions_evaluation=regions_evaluation,
        order="morf",
        perturb_baseline=perturb_baseline,
    )
    drops = [_run(metric, *one, softmax=True)[0] for one in _one_by_one(samples, untie=True)]
    # The untouched image counts too, with a drop of 0.
    return _finite(metric, [np.sum(drop) / (len(drop) + 1) for drop in drops], _NO_SCORE)


def selectivity(samples: Explained, *, patches: int, perturb_baseline: str) -> Tensor:
    """Area under p(class) while all patches are removed, most relevant first."""
    metric = _metric(
        quantus.Selectivity,
        patch_size=patch_size(samples.inputs.shape, patches),
        perturb_baseline=perturb_baseline,
    )
    curves = [_run(metric, *one, softmax=True)[0] for one in _one_by_one(samples, untie=True)]
    return _finite(metric, [_area(curve) for curve in curves], _NO_SCORE)


def sensitivity_n(
    samples: Explained, *, steps: int, n_max_fraction: float, perturb_baseline: str
) -> Tensor:
    """Correlates the map's sum over the n top features with the drop of the logit without them.

    For one sample, over growing n; the paper draws subsets of n features instead. Quantus itself
    correlates over the samples of a batch, for each n, and takes the drop without n features, but
    the map's sum over the last step's alone. Its ``similarity_func`` gets both, so what belongs
    together is correlated there.
    """

    def similarity(a: Array, b: Array, batched: bool) -> list[float]:  # noqa: ARG001
        drops, sums = a[:, 0], np.cumsum(b[:, 0])
        return [float(pearsonr(drops, sums)[0])]

    metric = _metric(
        quantus.SensitivityN,
        similarity_func=similarity,
        # Quantus multiplies it by the number of pixels, but counts features.
        n_max_percentage=n_max_fraction * samples.inputs.shape[1],
        features_in_step=features_in_step(samples.inputs.shape, steps),
        perturb_baseline=perturb_baseline,
    )
    values = [_run(metric, *one)[0] for one in _one_by_one(samples, untie=True)]
    return _finite(metric, values, _NO_RESPONSE)


def irof(samples: Explained, *, segmentation_method: str) -> Tensor:
    """Area over p(class) relative to the whole image's while segments turn to the mean colour.

    In units of segments, of which SLIC makes about 100; most relevant first. The mean colour is
    that of the untouched image; Quantus's own replacement fails on inputs with several channels.
    """

    def metric(sample: Explained) -> Any:
        return _metric(
            quantus.IROF,
            segmentation_method=segmentation_method,
            perturb_func=_replace_by_mask,
            perturb_func_kwargs={
                "value": _to_numpy(sample.inputs.float().mean((2, 3), keepdim=True))
            },
        )

    values = [
        _run(metric(sample), sample, maps, softmax=True)[0]
        for sample, maps in _one_by_one(samples, untie=True)
    ]
    return _finite(metric(samples), values, "the class has probability 0 on the untouched image")


def _replace_by_mask(arr: Array, mask: Array, value: Array, **_: Any) -> Array:
    return np.where(mask, value, arr)


def road(samples: Explained, *, percentages: tuple[int, ...], noise: float) -> Tensor:
    """How often the class stays the predicted one, over percentages of the top pixels removed.

    Removed pixels are imputed from their neighbours. A class that is not predicted for the
    untouched image scores near 0 with any map. Quantus takes the features of all channels for
    pixels, and fails on inputs with several channels: here features are turned into pixels.
    """
    channels, pixels = samples.inputs.shape[1], _pixels(samples)

    def impute(arr: Array, indices: Array, **options: Any) -> Array:
        result: Array = noisy_linear_imputation(arr, np.unique(indices % pixels), **options)
        return result

    metric = _metric(
        quantus.ROAD,
        # Quantus takes so many percent of the number of pixels, but counts features.
        percentages=[channels * percentage for percentage in percentages],
        noise=noise,
        perturb_func=impute,
    )
    kept = [_run(metric, *one, softmax=True) for one in _one_by_one(samples, untie=True)]
    return _finite(metric, [np.mean(list(hits.values())) for hits in kept], _NO_SCORE)


def infidelity(samples: Explained, *, patches: int, perturb_baseline: str) -> Tensor:
    """Mean squared error between the logit's drop and what the map predicts of it.

    Patches are removed one after the other. A saliency map has no unit, so it gets the scale that
    fits best, as in ``captum.metrics.infidelity(normalize=True)``. The removal is not random, so
    repeating it (Quantus's ``n_perturb_samples``) changes nothing.
    """

    def scaled_error(a: Array, b: Array, batched: bool) -> Array:  # noqa: ARG001
        squares = (b * b).sum(axis=-1, keepdims=True)
        scale = (a * b).sum(axis=-1, keepdims=True) / np.where(squares == 0, 1, squares)
        error: Array = ((a - scale * b) ** 2).mean(axis=-1)
        return error

    metric = _metric(
        quantus.Infidelity,
        loss_func=scaled_error,
        perturb_patch_sizes=[dividing_patch_size(samples.inputs.shape, patches)],
        n_perturb_samples=1,
        perturb_baseline=perturb_baseline,
    )
    return _finite(metric, [_run(metric, *one)[0] for one in _one_by_one(samples)], _NO_SCORE)


def sufficiency(samples: Explained, *, threshold: float) -> Tensor:
    """Among samples with a similar map, the share for which the network predicts the same class.

    Compares the samples of a batch, so a value depends on the others: give it all of them. Similar
    maps are at most `threshold` times the largest distance apart. A sample without any scores 0.
    The distance is Quantus's (Euclidean, each pixel standardised), except that pixels that are the
    same in all maps are left out: they would make every distance NaN, and every score 0.
    """
    if len(samples) < 2:
        raise ValueError("Sufficiency compares samples: give it at least two, better all of them.")
    _reject_useless(samples.maps)
    maps = _scaled(samples.maps)
    flat = maps.reshape(len(maps), -1)
    varies = np.ptp(flat, axis=0) > 0
    if not varies.any():
        raise ValueError("All maps are the same: Sufficiency has nothing to compare.")
    spread = flat[:, varies].std(axis=0, ddof=1)

    def distance(u: Array, v: Array, **_: Any) -> float:
        return float(np.linalg.norm((u - v)[varies] / spread))

    metric = _metric(quantus.Sufficiency, threshold=threshold, distance_func=distance)
    return _finite(metric, _run(metric, samples, maps), _NO_SCORE)


# --- localisation ---------------------------------------------------------------------------------

_NOTHING_OUTSIDE = "its mask covers the whole image, so no pixel is outside"
_NO_MASS = "its map has no mass"


def pointing_game(samples: Explained) -> Tensor:
    """1 if the map's maximum lies in the mask, else 0; of several maxima one is drawn."""
    metric = _metric(quantus.PointingGame, weighted=False)
    values = [_run(metric, *one)[0] for one in _one_by_one(samples, untie=True)]
    return _finite(metric, values, _NO_MASS)


def attribution_localisation(samples: Explained) -> Tensor:
    """The share of abs(map) inside the mask."""
    metric = _metric(quantus.AttributionLocalisation, weighted=False, abs=True)
    return _finite(metric, [_run(metric, *one)[0] for one in _one_by_one(samples)], _NO_MASS)


def top_k_intersection(samples: Explained, *, k: int) -> Tensor:
    """The share of the map's `k` top pixels (at most a quarter of all) that lie in the mask."""
    metric = _metric(
        quantus.TopKIntersection, k=min(k, _pixels(samples) // 4), concept_influence=False
    )
    values = [_run(metric, *one)[0] for one in _one_by_one(samples, untie=True)]
    return _finite(metric, values, _NO_MASS)


def relevance_rank_accuracy(samples: Explained) -> Tensor:
    """The share of the map's K top pixels that lie in the mask, K the size of the mask."""
    metric = _metric(quantus.RelevanceRankAccuracy)
    values = [_run(metric, *one)[0] for one in _one_by_one(samples, untie=True)]
    return _finite(metric, values, _NO_MASS)


def relevance_mass_accuracy(samples: Explained) -> Tensor:
    """The share of abs(map) inside the mask."""
    metric = _metric(quantus.RelevanceMassAccuracy, abs=True)
    return _finite(metric, [_run(metric, *one)[0] for one in _one_by_one(samples)], _NO_MASS)


def auc(samples: Explained) -> Tensor:
    """Area under the ROC curve of the map as a classifier of the mask's pixels."""
    metric = _metric(quantus.AUC)
    values = [_run(metric, *one)[0] for one in _one_by_one(samples)]
    return _finite(metric, values, _NOTHING_OUTSIDE)


# --- complexity -----------------------------------------------------------------------------------


def sparseness(samples: Explained) -> Tensor:
    """Gini index of abs(map): 0 for a flat map, towards 1 for a single pixel."""
    metric = _metric(quantus.Sparseness, abs=True)
    return _finite(metric, [_run(metric, *one)[0] for one in _one_by_one(samples)], _NO_MASS)


def complexity(samples: Explained) -> Tensor:
    """Entropy of abs(map) in nats: 0 for a single pixel, log(H W) for a flat map."""
    metric = _metric(quantus.Complexity, abs=True)
    return _finite(metric, [_run(metric, *one)[0] for one in _one_by_one(samples)], _NO_MASS)


# --- randomisation --------------------------------------------------------------------------------


def mprt(samples: Explained, *, layer_order: str) -> Tensor:
    """Rank correlation of the map with that of the network with all parameters drawn anew.

    Modules draw by their ``reset_parameters``. A randomised network often has nothing to show: a
    constant map resembles no other, and counts as correlation 0.
    """

    def similarity(a: Array, b: Array, batched: bool) -> Array:
        return np.zeros(1) if np.isnan(b).any() else _spearman(a, b, batched)

    metric = _metric(
        quantus.MPRT,
        similarity_func=similarity,
        layer_order=layer_order,
        seed=samples.seed,
        return_last_correlation=True,
        skip_layers=True,
    )
    values = [_run_explain(metric, *one)[0] for one in _one_by_one(samples)]
    return _finite(metric, values, _NO_SCORE)


def random_logit(samples: Explained) -> Tensor:
    """SSIM of the map with the map for another class, drawn at random.

    Of the maps as images; Quantus alone would compare their rows strung together.
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

    metric = _metric(
        quantus.RandomLogit, similarity_func=similarity, num_classes=n_classes, seed=samples.seed
    )
    values = [_run_explain(metric, *one)[0] for one in _one_by_one(samples)]
    return _finite(metric, values, _NO_SCORE)


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
        explained = _scaled(again.maps)
        return explained if np.ptp(explained) else np.full_like(explained, np.nan)

    return _run(metric, sample, maps, explain_func=explain)
