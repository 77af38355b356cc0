"""The commands that are runs: what was typed becomes settings, the rows a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
import typer
from lightning_fabric import Fabric

from captum_groupcam.methods import METHOD_SETS, MethodSpec, offered_methods
from captum_groupcam.models import load_model
from captum_groupcam.options import split_text

from ..controls import CONTROLS
from ..data import Dataset, Sample
from ..measures.randomisation import Order
from ..named import load_dataset, load_measure
from ..options import split
from ..report import write_report
from ..run.folder import RunFolder
from ..run.loop import RunSettings, prepare, run
from .ablation import chosen_studies
from .sanity import randomisation_figure
from .speed import COMPARISONS
from .speed_run import run_speed

__all__ = ["ablate", "compare", "sanity", "speed"]

#: What a sanity check compares: a method that follows the weights, and those that should.
_SANITY_METHODS = ("group_cam", "grad_cam", "guided_backprop", "integrated_gradients", "edges")

#: What of ``speed`` is a run: the seconds and queries of each method.
_EACH_METHOD = "methods"


def compare(methods: list[str] | None, typed: dict[str, Any], network: dict[str, Any]) -> None:
    """Compares methods by measures, and writes a report."""
    _run_and_report(_settings("compare", typed, network, _specs(methods)))


def ablate(
    studies: list[str] | None,
    layers: list[str] | None,
    typed: dict[str, Any],
    network: dict[str, Any],
) -> None:
    """Varies the options of Group-CAM one at a time, and writes a report."""
    chosen = chosen_studies(split(studies), split(layers))
    specs = {str(spec): spec for study in chosen.values() for spec in study}
    titles = {name: [str(spec) for spec in study] for name, study in chosen.items()}
    settings = _settings("ablate", typed, network, list(specs.values()), studies=titles)
    _run_and_report(settings)


def sanity(methods: list[str] | None, typed: dict[str, Any], network: dict[str, Any]) -> None:
    """Re-initialises the network's layers, compares the maps, and writes a report."""
    orders = get_args(Order)
    settings = _settings(
        "sanity",
        typed | {"measures": [f"ParameterRandomisation.{order}" for order in orders]},
        network,
        _specs(methods, _SANITY_METHODS),
    )
    folder = run(settings)
    if folder is None:
        return
    evaluator, dataset = prepare(settings)
    sample = _first_measured(folder, dataset)
    for order in orders:
        name = f"{order} randomisation"
        if sample is not None and not folder.gallery.has_figure(name):
            figure = randomisation_figure(evaluator, sample, order)
            folder.gallery.keep_figure(name, figure)
    typer.echo(write_report([folder.path], folder.path / "report"))


def speed(
    names: list[str] | None,
    methods: list[str] | None,
    threads: int,
    rounds: int,
    typed: dict[str, Any],
    network: dict[str, Any],
) -> None:
    """Times every method over the data, and compares run times as ratios within one run."""
    known = (_EACH_METHOD, *COMPARISONS)
    chosen = names or list(known)
    unknown = sorted(set(chosen) - {*known})
    if unknown:
        raise ValueError(f"Unknown: {', '.join(unknown)}; known are {', '.join(known)}.")
    torch.set_num_threads(threads)
    # The cost of an explanation is a row of every run; here it is that of one alone.
    typed = {**typed, "samples_per_batch": typed["samples_per_batch"] or 1}
    settings = _settings("speed", typed, network, _specs(methods), measures=[])
    if _EACH_METHOD in chosen:
        _run_and_report(settings)
    compared = [name for name in chosen if name != _EACH_METHOD]
    if compared:
        device = Fabric(accelerator=settings.accelerator, devices=1).device
        run_speed(
            compared,
            load_model(**network, device=device),
            threads=threads,
            rounds=rounds,
            out=settings.out / "speed.json",
        )


def _settings(
    command: str,
    typed: Mapping[str, Any],
    network: Mapping[str, Any],
    methods: Sequence[MethodSpec],
    **others: Any,
) -> RunSettings:
    """Settings of what was typed; what is named as an object is imported.

    Raises:
        ValueError: If there is no such object, or it is of another kind.
    """
    measures = typed["measures"]
    given = {
        **typed,
        "out": typed["out"] or Path("out") / command,
        "dataset": load_dataset(typed["dataset"]),
        "measures": None if measures is None else [load_measure(name) for name in measures],
        **{"model" if name == "name" else name: value for name, value in network.items()},
        **others,
    }
    return RunSettings(methods=methods, **given)


def _specs(texts: list[str] | None, default: Sequence[str] = ()) -> list[MethodSpec]:
    """The methods that were chosen; if none, the default, or all but research."""
    words = [word for text in texts or () for word in split_text(text, " ")]
    chosen = [
        name
        for word in words
        for name in METHOD_SETS.get(word, (word,))
        if name == word or name not in words
    ]
    try:
        return [
            MethodSpec.parse(text, importing=True)
            for text in chosen or default or [*offered_methods(), *CONTROLS]
        ]
    except TypeError as error:  # an option that there is not
        raise ValueError(str(error)) from error


def _first_measured(folder: RunFolder, dataset: Dataset) -> Sample | None:
    """The first sample with results of all methods, so that there are maps to draw."""
    for sample in folder.table().samples_without_failures():
        if sample in dataset.loaders:
            return dataset.load(sample)
    return None


def _run_and_report(settings: RunSettings) -> None:
    folder = run(settings)
    if folder is not None:
        typer.echo(write_report([folder.path], folder.path / "report"))
