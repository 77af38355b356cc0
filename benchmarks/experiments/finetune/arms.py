"""A network fine-tuned in all arms, with all seeds, and what comes out compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from lightning_fabric import Fabric

from captum_groupcam.models import load_model

from ...errors import ConfigurationError
from ...run.configuration import RANDOM, fingerprint, versions
from ...run.lock import locked
from ...run.network import preprocessing_of
from ...run.processes import in_first
from ...run.rows import write_atomically
from .data import image_folder
from .results import Run, write_results
from .settings import FineTuneSettings
from .training import train

__all__ = ["run_arms"]

_CONFIGURATION = "configuration.json"
_PACKAGES = ("captum_groupcam", "captum", "torch", "torchvision", "lightning-fabric")
#: What does not change the results, or is named otherwise in the configuration.
_LEFT_OUT = ("data", "network", "workers")


def run_arms(
    settings: FineTuneSettings, arms: Sequence[str], seeds: int, out: Path, **fabric_options: Any
) -> None:
    """Trains what the folder does not have yet, and writes what there is.

    Args:
        settings (FineTuneSettings): How, the same for all.
        arms (sequence of str): Names of :data:`~benchmarks.experiments.finetune.training.ARMS`.
        seeds (int): Runs of each arm.
        out (Path): The folder.
        **fabric_options (Any): Arguments of :class:`lightning_fabric.Fabric`.
    """
    fabric = Fabric(**fabric_options)
    fabric.launch()
    configuration = _configuration(settings, fabric_options["precision"])
    runs = {}
    with ExitStack() as until_the_end:

        def begin() -> None:
            until_the_end.enter_context(locked(out))
            _configure(out, configuration)

        in_first(fabric, begin)
        for seed in range(seeds):
            for arm in arms:
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
    network = settings.network
    model = load_model(**network)
    return {
        "data": settings.data.resolve().name,
        "pictures": digest.hexdigest()[:16],
        "model": model.name,
        "weights": RANDOM if network.get("weights") == RANDOM else fingerprint(model.network),
        "layer": model.layer.name,
        **preprocessing_of(model, network),
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
