"""``captum-groupcam finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from captum_groupcam.apps.options import network_options, with_options

from ...names import ARM_NAMES
from ...options import fabric_options
from .settings import FineTuneSettings

__all__ = ["finetune"]

_DEFAULTS = FineTuneSettings(Path())


@with_options(network=network_options, fabric=fabric_options)
def finetune(
    data: Annotated[
        Path, typer.Option(help="A folder with train/ and val/, each with a folder a class.")
    ],
    out: Annotated[
        Path, typer.Option(help="The folder of results. A stopped run continues from it.")
    ],
    arms: Annotated[
        str, typer.Option(help="What is done to the training pictures; several in quotes.")
    ] = " ".join(ARM_NAMES),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each arm, with seeds from 0.")] = 3,
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
    *,
    network: dict[str, Any],
    fabric: dict[str, Any],
) -> None:
    """Fine-tunes a network with and without augmentation, and compares."""
    chosen = arms.split()
    unknown = sorted(set(chosen) - set(ARM_NAMES))
    if unknown:
        raise ValueError(
            f"Unknown arms {', '.join(unknown)}: expected some of {', '.join(ARM_NAMES)}."
        )
    if head not in ("replace", "keep"):
        raise ValueError(f"head must be 'replace' or 'keep', got {head!r}.")
    from .arms import run_arms

    settings = FineTuneSettings(
        data=data,
        network=network,
        keep_head=head == "keep",
        train_from=train_from,
        batch_statistics=batch_statistics,
        epochs=epochs,
        plain_epochs=plain_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        train_per_class=train_per_class,
        n_groups=n_groups,
        probability=probability,
        every_n_steps=every_n_steps,
        n_maps=n_maps,
        workers=workers,
    )
    run_arms(settings, chosen, seeds, out, **fabric)
