"""``python -m benchmarks``: the command line of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.memory import run_memory
from benchmarks.speed import COMPARISONS, run_speed

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def benchmarks() -> None:
    """Compares saliency methods."""


@app.command()
def speed(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Any of: {', '.join(COMPARISONS)}. All if none.")
    ] = None,
    model: Annotated[str, typer.Option(help="The network.")] = "efficientnet_lite0",
    weights: Annotated[str | None, typer.Option(help="A weights name, a file, or random.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that PyTorch may use.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 3,
    device: Annotated[str, typer.Option(help="Where the network runs.")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="A JSON file for the figures.")] = None,
) -> None:
    """Compares run times, as ratios within one run."""
    unknown = set(names or ()) - set(COMPARISONS)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: not in {', '.join(COMPARISONS)}")
    run_speed(
        names or list(COMPARISONS),
        model=model,
        weights=weights,
        threads=threads,
        rounds=rounds,
        device=device,
        out=out,
    )


@app.command()
def memory() -> None:
    """Measures the peak of memory, each case in a process of its own."""
    run_memory()


if __name__ == "__main__":
    app()
