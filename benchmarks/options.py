"""Options that several commands have, each group declared once; nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from captum_groupcam.apps.options import with_options

from .names import DATASET_NAMES, DEFAULT_NAMES, MEASURE_NAMES

__all__ = ["fabric_options", "run_options", "split"]


def fabric_options(
    *,
    accelerator: Annotated[str, typer.Option(help="As in Lightning Fabric.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    strategy: Annotated[str, typer.Option(help="As in Lightning Fabric.")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true, 16-mixed or bf16-mixed.")] = "32-true",
) -> dict[str, Any]:
    """Arguments of :class:`lightning_fabric.Fabric`."""
    return {
        "accelerator": accelerator,
        "devices": devices,
        "num_nodes": num_nodes,
        "strategy": strategy,
        "precision": precision,
    }


@with_options(fabric=fabric_options)
def run_options(
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder, from which a stopped run goes on. Else out/COMMAND."),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(DATASET_NAMES)}, with options as in grid:of=imagenet,n=3; or "
            "your own, a data set of PyTorch or a "
            "function that makes it: package.module:object or FILE.py:object."
        ),
    ] = "bundled",
    root: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    measures: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Any of {', '.join(MEASURE_NAMES)}, or package.module:object or FILE.py:object "
            "of your own; several in quotes or by repeating the option. Otherwise "
            f"{', '.join(DEFAULT_NAMES)}, as far as the data have boxes."
        ),
    ] = None,
    target: Annotated[
        str, typer.Option(help="The class to explain: label or predicted.")
    ] = "label",
    samples: Annotated[
        str | None,
        typer.Option(help="Which samples, as a slice: 0::2 for every other one, 1::2 the others."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of samples, the first of them.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the measures.")] = 0,
    n_shown: Annotated[int, typer.Option(min=0, help="Samples whose pictures are kept.")] = 8,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network (needs a C++ compiler).")
    ] = False,
    accelerated: Annotated[
        bool,
        typer.Option(
            "--accelerate",
            help="Ask a copy of the network with folded normalisation: the same to rounding, and "
            "faster where there is some.",
        ),
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed.")] = False,
    samples_per_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Samples that are explained or measured in one call, where the method or measure "
            "can do so. Otherwise as many as fill the network's batches on a GPU, and 1 on a CPU.",
        ),
    ] = None,
    fabric: dict[str, Any],
) -> dict[str, Any]:
    """Arguments of :class:`~benchmarks.run.loop.RunSettings` beside methods and network.

    The folder, data set and measures are as typed.
    """
    return {
        "out": out,
        "dataset": dataset,
        "root": root,
        "measures": split(measures) or None,
        "target": target,
        "samples": samples,
        "limit": limit,
        "seed": seed,
        "n_shown": n_shown,
        "compiled": compiled,
        "accelerated": accelerated,
        "retry": retry,
        "samples_per_batch": samples_per_batch,
        **fabric,
    }


def split(values: list[str] | None) -> list[str]:
    """Words of all values of an option: ``["a b", "c"]`` to ``["a", "b", "c"]``."""
    return [word for value in values or () for word in value.split()]
