"""A made run of any size, to try reports on: seeded values, without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..run.folder import RunFolder
from ..run.rows import COST

__all__ = ["MEASURES", "make_run"]

#: Measure to its scores, with their directions, and its category.
MEASURES: dict[str, tuple[dict[str, bool], str]] = {
    COST: ({"seconds": False, "queries": False, "forward_passes": False}, "cost"),
    "DeletionInsertion": (
        {"deletion": False, "insertion": True, "over_all": True},
        "faithfulness",
    ),
    "PointingGame": ({"pointing_game": True}, "localisation"),
    "quantus.Sparseness": ({"quantus.Sparseness": True}, "complexity"),
}
_N_CLASSES = 1000
#: Points of a curve, and so many pairs of curves, of which each row has one.
_N_POINTS, _N_CURVES = 101, 2000


def make_run(
    path: Path,
    n_samples: int,
    n_methods: int = 18,
    *,
    curves: bool = True,
    seed: int = 0,
) -> RunFolder:
    """Writes the folder of a run, as one process has left it that ended before its last step.

    Args:
        path (Path): The folder.
        n_samples (int): Number of samples.
        n_methods (int, optional): Number of methods. Default: 18.
        curves (bool, optional): Whether deletion and insertion have curves. Default: True.
        seed (int, optional): Seed of the values. Default: 0.
    """
    methods = ["group_cam", *(f"method_{place:02}" for place in range(1, n_methods))]
    folder = RunFolder(path)
    folder.configure(_configuration(methods, n_samples))
    rng = np.random.default_rng(seed)
    parts = list(_curves(rng)) if curves else [""]
    with (path / "results-0.jsonl").open("w", encoding="utf-8") as file:
        for place in range(n_samples):
            file.writelines(_lines(rng, place, methods, parts))
    return folder


def _configuration(methods: Sequence[str], n_samples: int) -> dict[str, Any]:
    return {
        "model": "made",
        "weights": "made",
        "layer": "made",
        "dataset": "made",
        "n_samples": n_samples,
        "samples": "made",
        "left_out": {},
        "left_out_names": {},
        "target": "label",
        "seed": 0,
        "studies": {},
        "methods": {name: {"name": name, "options": {}, "layer": None} for name in methods},
        "measures": {
            name: {
                "scores": scores,
                "category": category,
                "description": "made",
                "source": "made",
                "parameters": {},
            }
            for name, (scores, category) in MEASURES.items()
        },
        "environment": {"device": "none"},
    }


def _curves(rng: np.random.Generator) -> Iterator[str]:
    """Parts of lines, since making numbers into text would take most of the time."""
    fraction = np.linspace(0, 1, _N_POINTS).round(5).tolist()
    for _ in range(_N_CURVES):
        rising = np.sort(rng.random((2, _N_POINTS)) ** 2).round(5)
        found = {"fraction": fraction, "deletion_curve": rising[0, ::-1].tolist()}
        yield ', "curves": ' + json.dumps(found | {"insertion_curve": rising[1].tolist()})


def _lines(
    rng: np.random.Generator, place: int, methods: Sequence[str], curves: Sequence[str]
) -> Iterator[str]:
    """The rows of a sample: what makes it hard is the same for all methods."""
    label = place % _N_CLASSES
    end = (
        f', "label": "{label}", "target": {label}, "cover": {rng.random():.6f}, '
        f'"difficult": {"true" if place % 4 == 0 else "false"}, "digest": "{place:012x}"}}\n'
    )
    noise = 0.1 * rng.normal(size=(len(methods), 5)) + 0.1 * rng.normal()
    chosen = rng.integers(len(curves), size=len(methods)).tolist()
    for index, (method, values) in enumerate(zip(methods, noise.tolist(), strict=True)):
        gain = 0.002 * index
        deletion, insertion = 0.2 + values[0], 0.6 + gain + values[1]
        scores = (
            (0.1 * np.exp(values[2]), 34.0, 40 + values[2]),
            (deletion, insertion, insertion - deletion),
            (float(values[3] + gain > 0),),
            (0.5 + values[4],),
        )
        for (measure, (names, _)), found in zip(MEASURES.items(), scores, strict=True):
            listed = ", ".join(
                f'"{name}": {value!r}' for name, value in zip(names, map(float, found), strict=True)
            )
            more = curves[chosen[index]] if measure == "DeletionInsertion" else ""
            yield (
                f'{{"sample": "{place:08}.JPEG:{label}", "method": "{method}", "measure": '
                f'"{measure}", "scores": {{{listed}}}, "seconds": 0.25, "queries": 34{more}{end}'
            )
