"""``python -m benchmarks finetune``."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from lightning_fabric import Fabric

from benchmarks.experiments.finetune.data import image_folder
from benchmarks.experiments.finetune.results import Run, write_results
from benchmarks.experiments.finetune.settings import ARMS, FineTuneSettings
from benchmarks.experiments.finetune.training import train
from benchmarks.run.configuration import ConfigurationError, versions
from benchmarks.run.lock import locked
from benchmarks.run.processes import in_first
from benchmarks.run.rows import write_atomically

__all__ = ["finetune"]

_CONFIGURATION = "configuration.json"
_PACKAGES = ("captum_groupcam", "captum", "torch", "torchvision", "lightning-fabric")
#: What does not change the results, or is named otherwise in the configuration.
_LEFT_OUT = ("data", "weights", "workers")
_DEFAULTS = FineTuneSettings(Path())


def finetune(
    data: Annotated[
        Path, typer.Option(help="A folder with train/ and val/, each with a folder a class.")
    ],
    out: Annotated[
        Path, typer.Option(help="The folder of results. A stopped run goes on from it.")
    ],
    arms: Annotated[
        str, typer.Option(help="What is done to the training pictures; several in quotes.")
    ] = " ".join(ARMS),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each arm, with seeds from 0.")] = 3,
    model: Annotated[
        str, typer.Option(help="efficientnet_lite0, a torchvision classifier, or timm:NAME.")
    ] = _DEFAULTS.model,
    weights: Annotated[str | None, typer.Option(help="A weights name, a file, or random.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="Dotted name of the layer to explain. Found if none.")
    ] = None,
    head: Annotated[
        str,
        typer.Option(
            help="replace: a new last layer for the data's classes. keep: the network's own "
            "classes, found by name or WordNet id; accuracy is that among all of them."
        ),
    ] = "replace",
    train_from: Annotated[
        str | None, typer.Option(help="First module that is trained (dotted name). All if none.")
    ] = None,
    batch_statistics: Annotated[
        bool,
        typer.Option(
            "--batch-statistics", help="BatchNorm learns statistics, each process its own."
        ),
    ] = False,
    epochs: Annotated[int, typer.Option(min=1)] = _DEFAULTS.epochs,
    plain_epochs: Annotated[
        int, typer.Option(min=0, help="First epochs, plain in all arms (for a new head).")
    ] = _DEFAULTS.plain_epochs,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Of all processes together.")
    ] = _DEFAULTS.batch_size,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="A tenth of it in the last quarter of the epochs.")
    ] = _DEFAULTS.learning_rate,
    momentum: Annotated[float, typer.Option(min=0)] = _DEFAULTS.momentum,
    weight_decay: Annotated[float, typer.Option(min=0)] = _DEFAULTS.weight_decay,
    image_size: Annotated[
        int, typer.Option(min=8, help="Side of the network's inputs in pixels.")
    ] = _DEFAULTS.image_size,
    train_per_class: Annotated[
        int | None, typer.Option(min=1, help="Training pictures of each class, drawn a seed.")
    ] = None,
    n_groups: Annotated[int, typer.Option(min=1, help="Of Group-CAM.")] = _DEFAULTS.n_groups,
    probability: Annotated[
        float, typer.Option(min=0, max=1, help="Share of pictures that is blurred.")
    ] = _DEFAULTS.probability,
    every_n_steps: Annotated[
        int, typer.Option(min=1, help="Of so many steps one is blurred.")
    ] = _DEFAULTS.every_n_steps,
    n_maps: Annotated[
        int, typer.Option(min=0, help="Validation pictures whose maps are measured each epoch.")
    ] = _DEFAULTS.n_maps,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load pictures.")] = 0,
    accelerator: Annotated[str, typer.Option(help="As in Lightning Fabric.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    strategy: Annotated[str, typer.Option(help="As in Lightning Fabric.")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true, 16-mixed or bf16-mixed.")] = "32-true",
) -> None:
    """Fine-tunes a network with and without augmentation, and compares."""
    chosen = arms.split()
    unknown = sorted(set(chosen) - ARMS.keys())
    if unknown:
        raise ValueError(f"Unknown arms {', '.join(unknown)}: expected some of {', '.join(ARMS)}.")
    if head not in ("replace", "keep"):
        raise ValueError(f"head must be 'replace' or 'keep', got {head!r}.")
    settings = FineTuneSettings(
        data=data,
        model=model,
        weights=weights,
        layer=layer,
        keep_head=head == "keep",
        train_from=train_from,
        batch_statistics=batch_statistics,
        epochs=epochs,
        plain_epochs=plain_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        image_size=image_size,
        train_per_class=train_per_class,
        n_groups=n_groups,
        probability=probability,
        every_n_steps=every_n_steps,
        n_maps=n_maps,
        workers=workers,
    )
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    configuration = _configuration(settings, precision)
    runs = {}
    with ExitStack() as until_the_end:

        def begin() -> None:
            until_the_end.enter_context(locked(out))
            _configure(out, configuration)

        in_first(fabric, begin)
        for seed in range(seeds):
            for arm in chosen:
                run = Run(out / "runs" / f"{arm}-{seed}")
                train(fabric, settings, arm, seed, run)
                runs[arm, seed] = run
        in_first(fabric, lambda: typer.echo(write_results(out, runs, configuration)))


def _configuration(settings: FineTuneSettings, precision: str) -> dict[str, Any]:
    """What the results depend on, but for arms and seeds, which may be added."""
    digest = hashlib.sha256()
    for half in ("train", "val"):
        for path, _ in image_folder(settings.data / half).samples:
            file = Path(path)
            digest.update(f"{half}/{file.parent.name}/{file.name}\n".encode())
    weights = settings.weights
    if weights is not None and Path(weights).is_file():
        weights = hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16]
    return {
        "data": settings.data.resolve().name,
        "pictures": digest.hexdigest()[:16],
        "weights": weights,
        **{name: value for name, value in asdict(settings).items() if name not in _LEFT_OUT},
        "precision": precision,
        "versions": " ".join(f"{name} {number}" for name, number in versions(_PACKAGES).items()),
    }


def _configure(out: Path, configuration: dict[str, Any]) -> None:
    """Begins in a folder, or goes on in it.

    Raises:
        ConfigurationError: If it holds results of another configuration.
    """
    path = out / _CONFIGURATION
    if path.exists():
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"{path} is not the configuration of a fine-tuning: {error}."
            ) from error
        differing = [
            f"{name}: {before.get(name)!r}, now {value!r}"
            for name, value in configuration.items()
            if name != "versions" and before.get(name) != value
        ]
        if differing:
            raise ConfigurationError(
                f"{out} holds results of another configuration ({'; '.join(differing)}). Give "
                "another folder, or the former options to go on."
            )
    write_atomically(path, (json.dumps(configuration, indent=1) + "\n").encode())
