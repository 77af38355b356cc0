"""A run: evaluates the samples that are not done yet, in one process or many."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks.data import DATASETS, Dataset
from benchmarks.measures.randomisation import N_LAYERS, chosen_layers
from benchmarks.measures.registry import DEFAULT_MEASURES, MEASURES
from benchmarks.run.evaluate import Evaluator, TargetChoice
from benchmarks.run.folder import RunFolder, done, fingerprint, versions
from benchmarks.run.rows import COST, Row
from captum_groupcam.images import ImageError
from captum_groupcam.methods import MethodSpec
from captum_groupcam.models import load_model

__all__ = ["Settings", "choose_measures", "prepare", "run"]

_PACKAGES = ("captum_groupcam", "captum", "torch", "torchvision", "numpy", "quantus")


@dataclass(frozen=True)
class Settings:
    """What is run, and where.

    Args:
        out (Path): The run's folder.
        methods (sequence of MethodSpec): The methods.
        measures (sequence of str, optional): Names of measures. Default: None,
            :data:`~benchmarks.measures.registry.DEFAULT_MEASURES` as far as the data allow.
        dataset (str, optional): A name of :data:`~benchmarks.data.DATASETS`.
            Default: ``bundled``.
        root (Path, optional): Where the data set lies. Default: None.
        model (str, optional): The network. Default: ``efficientnet_lite0``.
        weights (str, optional): A weights name, a file, or ``random``. Default: None, the model's.
        layer (str, optional): The layer to explain. Default: None, found.
        target (str, optional): ``label`` or ``predicted``. Default: ``label``.
        samples (str, optional): Which samples there are to the run, as a slice: ``0::2`` is every
            other one. Default: None, all.
        limit (int, optional): Number of samples, the first ones of them. Default: None, all.
        seed (int, optional): Seed of the measures. Default: 0.
        n_shown (int, optional): Samples whose pictures are kept. Default: 8.
        compiled (bool, optional): Whether the network is compiled. Default: False.
        retry (bool, optional): Whether what failed is tried again. Default: False.
        studies (mapping, optional): For the report: the title of a study to its methods, as text.
            Default: None.
        accelerator, devices, num_nodes, strategy, precision: As in
            :class:`lightning_fabric.Fabric`.
    """

    out: Path
    methods: Sequence[MethodSpec]
    measures: Sequence[str] | None = None
    dataset: str = "bundled"
    root: Path | None = None
    model: str = "efficientnet_lite0"
    weights: str | None = None
    layer: str | None = None
    target: TargetChoice = "label"
    samples: str | None = None
    limit: int | None = None
    seed: int = 0
    n_shown: int = 8
    compiled: bool = False
    retry: bool = False
    studies: Mapping[str, Sequence[str]] | None = None
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Any = "32-true"


def run(settings: Settings) -> RunFolder | None:
    """Evaluates what the folder does not have yet.

    Samples are dealt out to the processes; each appends its rows to a file of its own, and the
    first one puts them together at the end. The rows do not depend on the number of processes.

    Args:
        settings (Settings): What is run.

    Returns:
        RunFolder: The folder, complete; None in all processes but the first.

    Raises:
        ValueError: If a name is unknown, the data cannot be read or there are none, or a measure
            cannot be used.
        ConfigurationError: If the folder holds the rows of another configuration.
        RowError: If rows cannot be written.
    """
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        precision=settings.precision,
    )
    fabric.launch()
    console = Console(quiet=not fabric.is_global_zero, highlight=False)

    evaluator, dataset = prepare(settings, fabric.device)
    folder = RunFolder(settings.out)
    if fabric.is_global_zero:
        configuration = _configuration(settings, evaluator, dataset, fabric)
        for change in folder.configure(configuration):
            console.print(f"[yellow]Not as when this run began: {change}[/]")
        for reason, count in dataset.left_out.items():
            console.print(f"{count} annotated objects left out: {reason}")
    fabric.barrier()

    samples = list(dataset.loaders)[: settings.limit]
    finished = done(folder.rows(), retry=settings.retry)
    missing = {sample: evaluator.missing(sample, finished) for sample in samples}
    share = [
        (place, sample)
        for place, sample in enumerate(samples)
        if missing[sample] and place % fabric.world_size == fabric.global_rank
    ]
    total = sum(len(names) for _, one in share for names in missing[one].values())
    console.print(
        f"{len(samples)} samples x {len(settings.methods)} methods x "
        f"{len(evaluator.measures)} measures; {total} results to do"
        + (f" in the first of {fabric.world_size} processes" if fabric.world_size > 1 else "")
    )
    fabric.barrier()  # everyone has read what is done before anyone writes
    with folder.writer(fabric.global_rank) as writer, _progress(console, total) as progress:
        for place, sample in share:
            progress.now(sample)
            expected = sum(len(names) for names in missing[sample].values())
            try:
                with fabric.autocast():
                    for row in evaluator.rows(
                        place, dataset.loaders[sample], missing[sample], folder
                    ):
                        writer.write(row)
                        expected -= 1
                        progress.advance(1)
            except ImageError as error:
                writer.write(Row(sample, "", "", error=str(error)))
            progress.advance(expected)
    fabric.barrier()
    if fabric.is_global_zero:
        rows = folder.finish({sample: place for place, sample in enumerate(dataset.loaders)})
        failed = sum(row.error is not None for row in rows)
        if failed:
            console.print(f"[red]{failed} of {len(rows)} rows are failures; they say why.[/]")
    fabric.barrier()
    return folder if fabric.is_global_zero else None


def prepare(settings: Settings, device: torch.device | str = "cpu") -> tuple[Evaluator, Dataset]:
    """Loads the network and finds the data.

    Args:
        settings (Settings): What is run.
        device (torch.device or str, optional): Where the network goes. Default: the CPU.

    Raises:
        ValueError: As in :func:`run`.
    """
    if settings.target not in get_args(TargetChoice):
        raise ValueError(f"The target is label or predicted, got {settings.target!r}.")
    model = load_model(settings.model, settings.weights, device, layer=settings.layer)
    if settings.dataset not in DATASETS:
        raise ValueError(f"Unknown dataset {settings.dataset!r}; known are {', '.join(DATASETS)}.")
    dataset = DATASETS[settings.dataset](settings.root, model.class_names)
    if settings.samples is not None:
        dataset = dataset.part(_slice(settings.samples))
    if not len(dataset):
        raise ValueError(
            f"The data set {settings.dataset} at {settings.root} has no samples"
            + (f" {settings.samples}." if settings.samples else ".")
        )
    evaluator = Evaluator(
        model,
        settings.methods,
        choose_measures(settings.measures, dataset),
        settings.target,
        settings.seed,
        settings.compiled,
        settings.n_shown,
    )
    return evaluator, dataset


def choose_measures(names: Sequence[str] | None, dataset: Dataset) -> list[str]:
    """The measures of a run.

    Args:
        names (sequence of str or None): What was asked for; None for the default set.
        dataset (Dataset): The data, which may lack objects.

    Raises:
        ValueError: If one is unknown, compares samples with each other, or needs objects that the
            data do not have.
    """
    if names is None:
        names = [
            name
            for name in DEFAULT_MEASURES
            if dataset.has_objects or "objects" not in MEASURES[name].needs
        ]
    for name in names:
        if name not in MEASURES:
            raise ValueError(f"Unknown measure {name!r}; known are {', '.join(MEASURES)}.")
        needs = MEASURES[name].needs
        if "batch" in needs:
            raise ValueError(
                f"{name} compares samples with each other, but a run takes one at a time: call "
                f"MEASURES[{name!r}] on a batch of them."
            )
        if "objects" in needs and not dataset.has_objects:
            raise ValueError(f"{name} needs boxes or masks, and the data have none.")
    return list(dict.fromkeys(names))


def _slice(text: str) -> slice:
    """Reads ``start:stop:step``, each of which may be missing."""
    parts = text.split(":")
    try:
        start, stop, step = (int(part) if part.strip() else None for part in (*parts, "")[:3])
        if len(parts) not in (2, 3) or step == 0:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"Samples are chosen by a slice start:stop:step, as in 0::2 for every other one; got "
            f"{text!r}."
        ) from None
    return slice(start, stop, step)


def _configuration(
    settings: Settings, evaluator: Evaluator, dataset: Dataset, fabric: Fabric
) -> dict[str, Any]:
    ids = "\n".join(dataset.loaders)
    device = (
        torch.cuda.get_device_name(fabric.device)
        if fabric.device.type == "cuda"
        else f"{fabric.device.type}, {torch.get_num_threads()} threads"
    )
    return {
        "model": settings.model,
        "weights": fingerprint(evaluator.model.network),
        "layer": evaluator.model.layer.name,
        "dataset": settings.dataset,
        "n_samples": len(dataset),
        "samples": hashlib.sha256(ids.encode()).hexdigest()[:16],
        # Not there where all are meant, so that a folder from before there was a choice goes on.
        **({} if settings.samples is None else {"chosen_samples": settings.samples}),
        "left_out": dict(dataset.left_out),
        "target": settings.target,
        "seed": settings.seed,
        "precision": str(settings.precision),
        "compiled": settings.compiled,
        "randomised_layers": chosen_layers(evaluator.model.network, N_LAYERS),
        "studies": dict(settings.studies or {}),
        "methods": {
            str(spec): {"name": spec.name, "options": dict(spec.options), "layer": spec.layer}
            for spec in evaluator.methods
        },
        "measures": {
            COST: {
                "scores": {"seconds": False, "queries": False, "forward_passes": False},
                "description": "What the explanation takes, also in plain forward passes.",
                "source": "",
                "category": "cost",
                "parameters": {},
            }
        }
        | {
            name: {
                "scores": dict(MEASURES[name].higher_is_better),
                "description": MEASURES[name].description,
                "source": MEASURES[name].source,
                "category": MEASURES[name].category,
                "parameters": dict(MEASURES[name].parameters),
            }
            for name in evaluator.measures
        },
        "environment": {**versions(_PACKAGES), "device": device},
    }


class _Reporter(Protocol):
    """Shows how far a run is."""

    def now(self, sample: str) -> None:
        """Names what is worked on."""

    def advance(self, count: int) -> None:
        """Counts results."""


class _Bar:
    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._task = progress, progress.add_task("", total=total)

    def now(self, sample: str) -> None:
        self._progress.update(self._task, description=sample[-30:])

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)


class _Log:
    """A line a minute, where there is no terminal to draw in."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._count = console, total, 0
        self._start = self._last = time.monotonic()

    def now(self, sample: str) -> None:
        pass

    def advance(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        if now - self._last >= 60 and self._count:
            self._last = now
            left = (now - self._start) / self._count * (self._total - self._count) / 60
            self._console.print(f"{self._count} of {self._total}, {left:.0f} min left")


@contextmanager
def _progress(console: Console, total: int) -> Iterator[_Reporter]:
    if not console.is_terminal:
        yield _Log(console, total)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, speed_estimate_period=600) as progress:
        yield _Bar(progress, total)
