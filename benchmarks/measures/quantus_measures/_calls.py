"""How Quantus is called: one sample at a time, seeded, quiet, and with results that are checked."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from quantus.helpers.model.pytorch_model import PyTorchModel
from scipy.stats import spearmanr
from torch import Tensor, nn

from ..explained import Explained

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
#: Why there is no score, for :func:`finite_scores`.
NO_MASS = "its map has no mass"
NO_SCORE = "the network's score is NaN or infinite"


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
    # Before CUDA is initialised it would replace the seed that waits for it.
    seed = torch.manual_seed if initialized else torch.default_generator.manual_seed
    with torch.random.fork_rng(devices):
        seed(samples.seed)
        np.random.seed(samples.seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002


def make_metric(kind: Any, **options: Any) -> Any:
    """A Quantus metric that takes maps as they are, unless told otherwise, and prints nothing."""
    defaults = {"abs": False, "normalise": False, "return_aggregate": False}
    return kind(**{**defaults, **options}, disable_warnings=True, display_progressbar=False)


def run_metric(
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
                x_batch=to_numpy(samples.inputs.float()),
                y_batch=to_numpy(samples.targets),
                a_batch=maps.copy(),
                s_batch=None if objects is None else to_numpy(objects),
                channel_first=True,
                softmax=False,
                batch_size=len(samples),
                **options,
            )
        finally:
            # Quantus's cache would keep every model ever measured alive.
            PyTorchModel._get_last_softmax_layer_index.cache_clear()


def to_numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy().copy()
    return array


def one_by_one(samples: Explained, distinct: bool = False) -> Iterator[tuple[Explained, Array]]:
    """Every sample as a batch of its own, with its map as Quantus gets it.

    Args:
        samples (Explained): The samples.
        distinct (bool, optional): Whether no two pixels may have the same value, see
            :func:`break_ties`: for what sorts them. Default: False.

    Yields:
        tuple of Explained and numpy.ndarray: The sample, and its map.
    """
    reject_useless(samples.maps)
    for index in range(len(samples)):
        sample = samples.sample(index)
        maps = scaled(sample.maps)
        yield sample, break_ties(maps, sample.seed) if distinct else maps


def finite_scores(metric: Any, values: Any, undefined: str) -> Tensor:
    scores = torch.as_tensor(np.asarray(values, dtype=np.float64))
    wrong = (~scores.isfinite()).nonzero().flatten()
    if len(wrong):
        name = type(metric).__name__
        raise ValueError(f"Quantus's {name} is undefined for sample {wrong.tolist()}: {undefined}.")
    return scores


def reject_useless(maps: Tensor) -> None:
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


def scaled(maps: Tensor) -> Array:
    """Maps in double precision, each divided by its largest absolute value."""
    array = to_numpy(maps.double())
    largest = np.abs(array).max(axis=(1, 2, 3), keepdims=True)
    scaled: Array = array / np.where(largest == 0, 1, largest)
    return scaled


def break_ties(maps: Array, seed: int) -> Array:
    """Breaks ties by a seeded permutation: adds ranks that are too small to matter otherwise.

    Values closer than a billionth of the map's maximum count as ties.
    """
    ranks = np.random.default_rng(seed).permutation(maps[0].size)
    return maps + 1e-9 * (ranks / ranks.size).reshape(maps.shape[1:])


def n_pixels(samples: Explained) -> int:
    return samples.inputs[0, 0].numel()


def spearman(a: Array, b: Array, batched: bool) -> Array:  # noqa: ARG001
    return np.array([spearmanr(a[0], b[0])[0]])
