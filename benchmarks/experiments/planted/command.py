"""``captum-groupcam planted``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, cast

import typer

from ...names import ARCHITECTURE_NAMES, VARIANT_NAMES

__all__ = ["planted"]


def planted(
    action: Annotated[
        str,
        typer.Argument(help="train: a network, and prove it. prove: one that is there."),
    ],
    variant: Annotated[
        str, typer.Option(help=f"What bears the class: {' or '.join(VARIANT_NAMES)}.")
    ] = "patch",
    architecture: Annotated[
        str, typer.Option(help=f"The network: {' or '.join(ARCHITECTURE_NAMES)}.")
    ] = "residual",
    out: Annotated[
        Path | None, typer.Option(help="File of the weights. Otherwise that of the package.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Scenes that are intervened in.")] = 500,
    steps: Annotated[int, typer.Option(min=1, help="Batches of the training.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and scenes.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads that PyTorch may use.")] = 2,
) -> None:
    """Trains a network that decides by planted evidence, and proves that it does."""
    import torch

    from ...data.planted import prove
    from ...data.planted_network import Architecture, loader, model_name, weights_file
    from ...data.scenes import Variant
    from .training import train

    for given, possible in (
        (action, ("train", "prove")),
        (variant, VARIANT_NAMES),
        (architecture, ARCHITECTURE_NAMES),
    ):
        if given not in possible:
            raise ValueError(f"Expected {' or '.join(possible)}, got {given!r}.")
    chosen = cast(Variant, variant), cast(Architecture, architecture)
    path = out or weights_file(*chosen)
    torch.set_num_threads(threads)
    if action == "train":
        start = time.perf_counter()
        network = train(*chosen, steps=steps, seed=seed, said=typer.echo)
        torch.save(network.to(memory_format=torch.contiguous_format).state_dict(), path)
        typer.echo(f"{path}: {time.perf_counter() - start:.0f} s, {path.stat().st_size} bytes")
    proof = prove(loader(*chosen)(model_name(*chosen), str(path), None), chosen[0], n, seed)
    typer.echo(f"{proof}. Left out: {int((~proof.holds).sum())}.")
    if not proof.convinces:
        raise ValueError("The network does not decide by the evidence: train it for longer.")
