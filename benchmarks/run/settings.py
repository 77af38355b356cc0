"""What is run: settings, what they stand for, and the configuration that a folder keeps.

What can be compared is :data:`~captum_groupcam.methods.METHODS`; controls, peers and what is on
trial join it here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from captum_groupcam.methods import MethodSpec
from captum_groupcam.models import load_model

from .. import controls, known, peers, research  # noqa: F401
from ..data import DATASETS, Dataset, open_dataset
from ..measures.randomisation import N_LAYERS, chosen_layers
from ..measures.registry import DEFAULT_MEASURES, MEASURES
from .configuration import RANDOM, fingerprint, versions
from .evaluate import Evaluator, TargetChoice
from .network import preprocessing_of
from .rows import COST

__all__ = ["RunSettings", "choose_measures", "configuration_of", "prepare"]

_PACKAGES = ("captum_groupcam", "captum", "torch", "torchvision", "numpy", "quantus")


@dataclass(frozen=True)
class RunSettings:
    """What is run, and where.

    Args:
        out (Path): The run's folder.
        methods (sequence of MethodSpec): The methods.
        measures (sequence of str, optional): Names of measures. Default: None,
            :data:`~benchmarks.measures.registry.DEFAULT_MEASURES` as far as the data allow.
        dataset (str, optional): A name of :data:`~benchmarks.data.DATASETS`, with options as in
            ``grid:of=imagenet,n=3``.
            Default: ``bundled``.
        root (Path, optional): Where the data set lies. Default: None.
        model (str, optional): The network. Default: ``efficientnet_lite0``.
        weights (str, optional): A weights name, a file, or ``random``. Default: None, the model's.
        layer (str, optional): The layer to explain. Default: None, found.
        class_names (sequence of str or str, optional): The names of its classes, or a file of them.
            Default: None, its own.
        preprocess (str or mapping, optional): What is done to pictures, as
            :func:`~captum_groupcam.models.load_model` takes it. Default: None, its own.
        target (str, optional): ``label`` or ``predicted``. Default: ``label``.
        samples (str, optional): Which samples there are to the run, as a slice: ``0::2`` is every
            other one. Default: None, all.
        limit (int, optional): Number of samples, the first ones of them. Default: None, all.
        seed (int, optional): Seed of the measures, and of weights that are random. Default: 0.
        n_shown (int, optional): Samples whose pictures are kept. Default: 8.
        compiled (bool, optional): Whether the network is compiled. Default: False.
        accelerated (bool, optional): Whether a faster copy of the network answers what needs no
            gradients, as in :class:`~benchmarks.run.evaluate.Evaluator`. Default: False.
        retry (bool, optional): Whether what failed is tried again. Default: False.
        samples_per_batch (int, optional): Samples that share a call, as in
            :class:`~benchmarks.run.evaluate.Evaluator`. Default: None, chosen by the device.
        studies (mapping, optional): For the report: the title of a study to its methods, as text.
            Default: None.
        accelerator, devices, num_nodes, strategy, precision: As in
            :class:`lightning_fabric.Fabric`.
    """

    out: Path
    methods: Sequence[MethodSpec]
    measures: Sequence[str] | None = None
    dataset: str = "bundled"
    root: Path | None = None
    model: str = "efficientnet_lite0"
    weights: str | None = None
    layer: str | None = None
    class_names: Sequence[str] | str | None = None
    preprocess: str | dict[str, Any] | None = None
    target: TargetChoice = "label"
    samples: str | None = None
    limit: int | None = None
    seed: int = 0
    n_shown: int = 8
    compiled: bool = False
    accelerated: bool = False
    retry: bool = False
    samples_per_batch: int | None = None
    studies: Mapping[str, Sequence[str]] | None = None
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Any = "32-true"

    @property
    def network(self) -> dict[str, Any]:
        """Arguments of :func:`~captum_groupcam.models.load_model`."""
        return {
            "name": self.model,
            "weights": self.weights,
            "layer": self.layer,
            "class_names": self.class_names,
            "preprocess": self.preprocess,
        }


def prepare(settings: RunSettings, device: torch.device | str = "cpu") -> tuple[Evaluator, Dataset]:
    """Loads the network and finds the data.

    Args:
        settings (RunSettings): What is run.
        device (torch.device or str, optional): Where the network goes. Default: the CPU.

    Raises:
        ValueError: As in :func:`~benchmarks.run.loop.run`.
    """
    if settings.target not in get_args(TargetChoice):
        raise ValueError(f"The target is label or predicted, got {settings.target!r}.")
    if settings.compiled and settings.accelerated:
        raise ValueError("A run is compiled or accelerated: give one of the two.")
    with torch.random.fork_rng(devices=()):
        # The same in all processes and after a stop, also where weights are drawn.
        torch.default_generator.manual_seed(settings.seed)
        model = load_model(**settings.network, device=device)
    dataset = open_dataset(DATASETS, settings.dataset, settings.root, model)
    if settings.samples is not None:
        dataset = dataset.part(_slice(settings.samples))
    if not len(dataset):
        raise ValueError(
            f"The data set {settings.dataset} at {settings.root} has no samples"
            + (f" {settings.samples}." if settings.samples else ".")
        )
    evaluator = Evaluator(
        model,
        settings.methods,
        choose_measures(settings.measures, dataset),
        settings.target,
        settings.seed,
        settings.compiled,
        settings.n_shown,
        settings.accelerated,
        settings.samples_per_batch,
    )
    return evaluator, dataset


def choose_measures(names: Sequence[str] | None, dataset: Dataset) -> list[str]:
    """The measures of a run.

    Args:
        names (sequence of str or None): What was asked for; None for the default set.
        dataset (Dataset): The data, which may lack objects.

    Raises:
        ValueError: If one is unknown, compares samples with each other, or needs objects that the
            data do not have.
    """
    if names is None:
        names = [
            name
            for name in DEFAULT_MEASURES
            if dataset.has_objects or "objects" not in MEASURES[name].needs
        ]
    for name in names:
        if name not in MEASURES:
            raise ValueError(f"Unknown measure {name!r}; known are {', '.join(MEASURES)}.")
        needs = MEASURES[name].needs
        if "batch" in needs:
            raise ValueError(
                f"{name} compares samples with each other, but a run takes one at a time: call "
                f"MEASURES[{name!r}] on a batch of them."
            )
        if "objects" in needs and not dataset.has_objects:
            raise ValueError(f"{name} needs boxes or masks, and the data have none.")
    return list(dict.fromkeys(names))


def _slice(text: str) -> slice:
    """Reads ``start:stop:step``, each of which may be missing."""
    parts = text.split(":")
    try:
        start, stop, step = (int(part) if part.strip() else None for part in (*parts, "")[:3])
        if len(parts) not in (2, 3) or step == 0:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"Samples are chosen by a slice start:stop:step, as in 0::2 for every other one; got "
            f"{text!r}."
        ) from None
    return slice(start, stop, step)


def configuration_of(
    settings: RunSettings, evaluator: Evaluator, dataset: Dataset, device: torch.device
) -> dict[str, Any]:
    """What the folder of a run says of it, as JSON.

    Args:
        settings (RunSettings): What is run.
        evaluator (Evaluator): Of :func:`prepare`.
        dataset (Dataset): Of :func:`prepare`.
        device (torch.device): Where it runs.
    """
    ids = "\n".join(dataset.loaders).encode("utf-8", "surrogatepass")
    named = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {torch.get_num_threads()} threads"
    )
    together = evaluator.n_together
    return {
        "model": evaluator.model.name,
        "weights": fingerprint(evaluator.model.network),
        **preprocessing_of(evaluator.model, settings.network),
        "layer": evaluator.model.layer.name,
        "dataset": settings.dataset,
        "n_samples": len(dataset),
        "samples": hashlib.sha256(ids).hexdigest()[:16],
        # Not there where all are meant, so that a folder from before there was a choice goes on.
        **({} if settings.samples is None else {"chosen_samples": settings.samples}),
        **({"data": dict(dataset.about)} if dataset.about else {}),
        **({"weights_seed": settings.seed} if settings.weights == RANDOM else {}),
        "left_out": dict(dataset.left_out),
        "left_out_names": dataset.left_out.named(),
        "target": settings.target,
        "seed": settings.seed,
        "precision": str(settings.precision),
        "compiled": settings.compiled,
        # Not there where it is not, as in folders from before there was a choice.
        **({"accelerated": True} if settings.accelerated else {}),
        "randomised_layers": chosen_layers(evaluator.model.network, N_LAYERS),
        "studies": dict(settings.studies or {}),
        "methods": {
            str(spec): {"name": spec.name, "options": dict(spec.options), "layer": spec.layer}
            for spec in evaluator.methods
        },
        "measures": {
            COST: {
                "scores": {"seconds": False, "queries": False, "forward_passes": False},
                "description": "What the explanation takes, also in plain forward passes.",
                "source": "",
                "category": "cost",
                "parameters": {},
            }
        }
        | {
            name: {
                "scores": dict(MEASURES[name].higher_is_better),
                "description": MEASURES[name].description,
                "source": MEASURES[name].source,
                "category": MEASURES[name].category,
                "parameters": dict(MEASURES[name].parameters),
            }
            for name in evaluator.measures
        },
        "environment": {
            **versions(_PACKAGES),
            "device": named,
            # What seconds depend on, too.
            **({"samples_per_batch": together} if together > 1 else {}),
        },
    }
