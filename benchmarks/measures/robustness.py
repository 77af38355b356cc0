"""Measures of robustness: does the map stay where the picture hardly changes?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from captum.metrics import sensitivity_max
from torch import Tensor

from captum_groupcam.masking.masks import normalize
from captum_groupcam.metrics.functional import average_drop

from .explained import Explained
from .measure import Measure
from .similarity import rank_correlation

__all__ = ["ROBUSTNESS"]


def _explained_again(explained: Explained, inputs: Tensor) -> Tensor:
    assert explained.explain is not None
    maps = explained.explain(explained.model, inputs, explained.targets)
    if not maps.isfinite().all():
        raise ValueError("The map of the changed picture is not finite.")
    return maps


def _max_sensitivity(explained: Explained, *, radius: float, n_samples: int) -> Tensor:
    """The largest relative change of the map among pictures that differ by up to the radius."""
    values = []
    for index in range(len(explained)):
        one = explained.sample(index)
        assert one.explain is not None

        def explain(inputs: tuple[Tensor, ...], one: Explained = one) -> Tensor:
            return _explained_again(one, inputs[0])

        devices = [one.inputs.device] if one.inputs.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(one.seed)
            values.append(
                sensitivity_max(
                    explain,
                    one.inputs,
                    perturb_radius=radius,
                    n_perturb_samples=n_samples,
                    max_examples_per_batch=1,
                )
            )
    return torch.cat(values)


def _agreement(explained: Explained, *, shift: float, noise: float) -> tuple[Tensor, ...]:
    """Rank correlation with the map of the picture mirrored, moved, and with noise, put back."""
    height, width = explained.inputs.shape[2:]
    dy, dx = round(shift * height), round(shift * width)
    kept = (slice(None), slice(None), slice(0, height - dy), slice(0, width - dx))
    noises = [
        torch.randn(one.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for one, seed in zip(explained.inputs, explained.each_seed, strict=True)
    ]
    noisy = explained.inputs + noise * torch.stack(noises).to(explained.inputs)

    def mirrored(image: Tensor) -> Tensor:
        return image.flip(-1)

    flip = mirrored(_explained_again(explained, mirrored(explained.inputs)))
    # What leaves the picture comes in again; that part is not compared.
    moved = _explained_again(explained, explained.inputs.roll((dy, dx), (2, 3)))
    moved = moved.roll((-dy, -dx), (2, 3))
    pairs = (
        (explained.maps, flip),
        (explained.maps[kept], moved[kept]),
        (explained.maps, _explained_again(explained, noisy)),
    )
    return tuple(_each(rank_correlation, before, after) for before, after in pairs)


def _each(compare: Callable[[Tensor, Tensor], float], before: Tensor, after: Tensor) -> Tensor:
    values = [compare(one, other) for one, other in zip(before, after, strict=True)]
    return torch.tensor(values, dtype=torch.float64)


def _adcc(explained: Explained) -> tuple[Tensor, ...]:
    """Harmonic mean of coherency, 1 - complexity and 1 - average drop, each in [0, 1]."""
    scaled = normalize(explained.maps.double())
    drop = average_drop(explained.model, explained.maps, explained.inputs, explained.targets)
    kept = 1 - drop.average_drop.double() / 100
    again = _explained_again(explained, explained.inputs * scaled.to(explained.inputs))
    correlation = _each(_correlation, scaled, normalize(again.double()))
    coherency = (1 + correlation).to(kept) / 2
    complexity = scaled.mean((1, 2, 3)).to(kept)
    parts = torch.stack([coherency, 1 - complexity, kept])
    # A part of 0 makes the mean 0.
    mean = torch.where((parts > 0).all(0), 3 / (1 / parts).sum(0), 0)
    return mean, coherency, complexity


def _correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's; of a constant map it is 0."""
    both = torch.stack([first.flatten(), second.flatten()])
    if (both.amax(1) == both.amin(1)).any():
        return 0.0
    return float(torch.corrcoef(both)[0, 1])


_N_SAMPLES = 10

#: In the order of the registry.
ROBUSTNESS = (
    Measure(
        "MaxSensitivity",
        "robustness",
        {"max_sensitivity": False},
        _max_sensitivity,
        "Yeh et al. 2019, arXiv 1901.09392; Captum's sensitivity_max",
        frozenset({"model", "explain"}),
        {"radius": 0.02, "n_samples": _N_SAMPLES},
        explanations=_N_SAMPLES + 1,
    ),
    Measure(
        "Agreement",
        "robustness",
        {"agreement.flip": True, "agreement.shift": True, "agreement.noise": True},
        _agreement,
        "docs/protocol.md",
        frozenset({"model", "explain"}),
        {"shift": 1 / 16, "noise": 0.1},
        explanations=3,
        shares_batches=True,
    ),
    Measure(
        "ADCC",
        "robustness",
        {"adcc": True, "adcc.coherency": True, "adcc.complexity": False},
        _adcc,
        "Poppi et al. 2021, arXiv 2104.10252",
        frozenset({"model", "explain"}),
        cost=lambda shape: 2,  # noqa: ARG005
        explanations=1,
        shares_batches=True,
    ),
)
