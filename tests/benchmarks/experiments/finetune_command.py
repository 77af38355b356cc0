"""``python finetune_command.py N ...``: fine-tunes a tiny network; killed at its Nth checkpoint."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import typer
from lightning_fabric import Fabric
from torch import nn

from benchmarks.experiments.finetune.command import finetune
from captum_groupcam.models import MODELS, ImageClassifier, Preprocessing


def tiny(_name: str, _weights: str | None, _n_classes: int | None) -> ImageClassifier:
    """A network that is the same in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = nn.Sequential()
        network.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        )
        network.more = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        network.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        network.head = nn.Linear(8, 5)
        nn.init.normal_(network.head.weight)
    preprocess = Preprocessing(32, (0.5,) * 3, (0.5,) * 3, resize=36)
    return ImageClassifier(network, preprocess, layer="more")


MODELS["tiny"] = tiny


def die_at(count: int) -> None:
    """Lets the process be killed when it has written half of a checkpoint."""
    save: Callable[..., Any] = Fabric.save

    def save_or_die(self: Fabric, path: Path, state: dict[str, Any]) -> None:
        nonlocal count
        count -= 1
        if not count:
            Path(path).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, path, state)

    Fabric.save = save_or_die  # type: ignore[method-assign]


if __name__ == "__main__":
    die_at(int(os.environ.get("DIE_AT", "0")))
    torch.set_num_threads(1)
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(finetune)
    sys.exit(app())
