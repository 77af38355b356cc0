"""``captum-groupcam planted``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, cast

import typer

from ...names import VARIANT_NAMES

__all__ = ["planted"]


def planted(
    action: Annotated[
        str,
        typer.Argument(help="train: a network, and prove it. prove: one that is there."),
    ],
    variant: Annotated[
        str, typer.Option(help=f"What bears the class: {' or '.join(VARIANT_NAMES)}.")
    ] = "patch",
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

    from captum_groupcam.models import load_model

    from ...data.planted import prove
    from ...data.planted_network import model_name, weights_file
    from ...data.scenes import Variant
    from .training import train

    if action not in ("train", "prove") or variant not in VARIANT_NAMES:
        raise ValueError(
            f"Expected train or prove, and a variant of {', '.join(VARIANT_NAMES)}; got "
            f"{action!r} and {variant!r}."
        )
    chosen = cast(Variant, variant)
    path = out or weights_file(chosen)
    torch.set_num_threads(threads)
    if action == "train":
        start = time.perf_counter()
        network = train(chosen, steps=steps, seed=seed, said=typer.echo)
        torch.save(network.to(memory_format=torch.contiguous_format).state_dict(), path)
        typer.echo(f"{path}: {time.perf_counter() - start:.0f} s, {path.stat().st_size} bytes")
    proof = prove(load_model(model_name(chosen), str(path)), chosen, n, seed)
    typer.echo(f"{proof}. Left out: {int((~proof.holds).sum())}.")
    if not proof.convinces:
        raise ValueError("The network does not decide by the evidence: train it for longer.")
