"""``python -m benchmarks speed``: run times as ratios within one run."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.timing import Timing, time_together
from captum_groupcam import GroupCAM
from captum_groupcam.images import sample_images
from captum_groupcam.models import LoadedModel, load_model

__all__ = ["COMPARISONS", "Comparison", "Subject", "run_speed"]

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Subject:
    """What is timed: a network, one image of it, and the class that it sees there."""

    model: LoadedModel
    image: Tensor
    target: int
    rounds: int

    def time(self, functions: Mapping[str, Callable[[], object]], reference: str) -> list[Timing]:
        """Times functions together on the subject's device."""
        return time_together(functions, reference, rounds=self.rounds, device=self.image.device)


@dataclass(frozen=True)
class Comparison:
    """A question about run time.

    Attributes:
        title (str): What is compared with what.
        run (Callable): Times it.
        goal (str): What the ratio should be.
    """

    title: str
    run: Callable[[Subject], list[Timing]]
    goal: str = ""


def forward_passes(subject: Subject, count: int, batch_size: int, layout: str) -> None:
    """Plain forward passes over ``count`` copies of the image, a batch at a time."""
    memory_format = LAYOUTS[layout]
    batch = subject.image.expand(batch_size, -1, -1, -1).contiguous(memory_format=memory_format)
    with torch.inference_mode():
        for start in range(0, count, batch_size):
            subject.model.network(batch[: min(batch_size, count - start)])


def batch_sizes(subject: Subject) -> list[Timing]:
    """32 forward passes at every batch size and layout; the reference is Group-CAM's default."""
    functions = {
        f"batches of {size}, {layout}": (
            lambda size=size, layout=layout: in_layout(subject, 32, size, layout)
        )
        for layout in LAYOUTS
        for size in BATCH_SIZES
    }
    return subject.time(functions, "batches of 8, channels_last")


def in_layout(subject: Subject, count: int, batch_size: int, layout: str) -> None:
    """Forward passes with the network's weights in the same layout."""
    network = subject.model.network
    network.to(memory_format=LAYOUTS[layout])
    try:
        forward_passes(subject, count, batch_size, layout)
    finally:
        network.to(memory_format=torch.channels_last)


def group_cam(subject: Subject) -> list[Timing]:
    """GroupCAM with 32 groups against 34 forward passes at their best batch size."""
    model = subject.model
    trial = subject.time(
        {
            str(size): lambda size=size: forward_passes(subject, 34, size, "channels_last")
            for size in BATCH_SIZES
        },
        "8",
    )
    best = int(min(trial, key=lambda timing: timing.seconds).name)
    method = GroupCAM(model.network, model.layer)
    passes = f"34 forward passes in batches of {best}, channels_last"
    return subject.time(
        {
            passes: lambda: forward_passes(subject, 34, best, "channels_last"),
            "GroupCAM, 32 groups": lambda: method.attribute(
                subject.image,
                subject.target,
                attribute_to_layer_input=model.attribute_to_layer_input,
            ),
        },
        passes,
    )


#: What ``python -m benchmarks speed`` can compare, by name.
COMPARISONS: dict[str, Comparison] = {
    "group_cam": Comparison(
        "Group-CAM against the forward passes that it stands for",
        group_cam,
        goal="at most 1.15",
    ),
    "batch_sizes": Comparison("Forward passes at several batch sizes and layouts", batch_sizes),
}


def run_speed(
    names: list[str],
    *,
    model: str,
    weights: str | None,
    threads: int,
    rounds: int,
    device: str,
    out: Path | None,
) -> None:
    """Runs comparisons, prints a table for each, and keeps the figures.

    Args:
        names (list of str): Keys of :data:`COMPARISONS`.
        model (str): A name that :func:`~captum_groupcam.models.load_model` knows.
        weights (str, optional): Its weights, as there.
        threads (int): Threads that PyTorch may use.
        rounds (int): Rounds of each comparison that count.
        device (str): Where the network runs.
        out (Path, optional): A JSON file; results of other comparisons in it are kept.
    """
    torch.set_num_threads(threads)
    loaded = load_model(model, weights, device=device)
    image = loaded.preprocess(sample_images()["cat"]()).unsqueeze(0).to(device)
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        target = int(loaded.network(image).argmax())
    subject = Subject(loaded, image, target, rounds)
    console = Console()
    for name in names:
        comparison = COMPARISONS[name]
        timings = comparison.run(subject)
        console.print(_table(f"{comparison.title} ({model}, {threads} threads)", timings))
        if comparison.goal:
            console.print(f"Goal for the ratio: {comparison.goal}.")
        if out is not None:
            _keep(out, f"{name}, {model}, {threads} threads, {device}", timings, rounds)


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
