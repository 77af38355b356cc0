"""``python -m benchmarks speed``: runs comparisons of run times, shows and keeps the figures."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from captum_groupcam.images import sample_images
from captum_groupcam.models import ImageClassifier

from .speed import COMPARISONS, Timed
from .timing import Timing

__all__ = ["run_speed"]


def run_speed(
    names: list[str],
    model: ImageClassifier,
    *,
    threads: int,
    rounds: int,
    out: Path,
) -> None:
    """Runs comparisons, prints a table for each, and keeps the figures.

    Args:
        names (list of str): Keys of :data:`COMPARISONS`.
        model (ImageClassifier): The network, where it runs.
        threads (int): Threads that PyTorch uses.
        rounds (int): Rounds of each comparison that count.
        out (Path): A JSON file; results of other comparisons in it are kept.
    """
    image = model.prepare(sample_images()["cat"]())
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        target = int(model.network(image).argmax())
    timed = Timed(model, image, target, rounds)
    console = Console()
    for name in names:
        comparison = COMPARISONS[name]
        timings = comparison.run(timed)
        console.print(_table(f"{comparison.title} ({model.name}, {threads} threads)", timings))
        if comparison.goal:
            console.print(f"Goal for the ratio: {comparison.goal}.")
        _keep(out, f"{name}, {model.name}, {threads} threads, {model.device}", timings, rounds)


def _table(title: str, timings: list[Timing]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("seconds", "ratio", "quartiles"):
        table.add_column(heading, justify="right")
    for timing in timings:
        table.add_row(
            timing.name,
            f"{timing.seconds:.3f}",
            f"{timing.ratio:.3f}",
            f"{timing.low:.3f} to {timing.high:.3f}",
        )
    return table


def _keep(path: Path, key: str, timings: list[Timing], rounds: int) -> None:
    results = json.loads(path.read_text()) if path.exists() else {}
    results[key] = {
        "rounds": rounds,
        "torch": version("torch"),
        "machine": platform.machine(),
        "timings": [asdict(timing) for timing in timings],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
