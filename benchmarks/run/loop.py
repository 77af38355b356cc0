"""A run: evaluates the samples that are not done yet, in one process or many."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from lightning_fabric import Fabric
from rich.console import Console

from captum_groupcam.methods import MethodSpec
from captum_groupcam.models import load_model

from ..data import DATASETS, Dataset, open_dataset, printable
from ..measures.randomisation import N_LAYERS, chosen_layers
from ..measures.registry import DEFAULT_MEASURES, MEASURES
from .checks import content_digest
from .configuration import RANDOM, ConfigurationError, fingerprint, preprocessing_of, versions
from .evaluate import Evaluator, TargetChoice
from .folder import RunFolder
from .lock import locked
from .processes import check_networks, end_together, in_first
from .progress import progress_of
from .rows import COST, RowError
from .table import RowTable

__all__ = ["RunSettings", "choose_measures", "prepare", "run"]

_PACKAGES = ("captum_groupcam", "captum", "torch", "torchvision", "numpy", "quantus")
#: Samples with rows that are looked at again before a run goes on.
_N_LOOKED_AT = 100
#: Things of each kind that are named as left out; the report names more.
_N_LEFT_OUT = 10
#: Failures that are named at the end.
_N_NAMED = 5


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
        retry (bool, optional): Whether what failed is tried again. Default: False.
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
    retry: bool = False
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


@dataclass(frozen=True)
class _Done:
    """What a folder has: of each sample methods and measures, its digest, whether it was begun."""

    pairs: Mapping[str, frozenset[tuple[str, str]]]
    digests: Mapping[str, str]
    begun: Collection[str]


def run(settings: RunSettings) -> RunFolder | None:
    """Evaluates what the folder does not have yet.

    Samples are dealt out to the processes; each appends its rows to a file of its own, and the
    first one puts them together at the end. The rows do not depend on the number of processes.
    Whatever goes wrong with a sample is a row with its reason, and the run goes on; it is not tried
    again but with `retry`. Until its end no other run can work in the folder.

    Args:
        settings (RunSettings): What is run.

    Returns:
        RunFolder: The folder, complete; None in all processes but the first.

    Raises:
        ValueError: If a name is unknown, the data cannot be read or there are none, or a measure
            cannot be used.
        ConfigurationError: If the folder holds the rows of another configuration or of other data,
            or processes have different networks.
        RowError: If rows cannot be written or read, or another run is at work in the folder.
        DeviceError: If a sample has left the device unusable.
        SystemExit: In a process in which nothing went wrong, when another one ends with an error.
    """
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        precision=settings.precision,
    )
    fabric.launch()
    console = Console(quiet=not fabric.is_global_zero, highlight=False, emoji=False)

    evaluator, dataset = prepare(settings, fabric.device)
    check_networks(fabric, evaluator.model.network)
    folder = RunFolder(settings.out)
    found: list[RowTable] = []
    with ExitStack() as until_the_end:

        def begin() -> None:
            until_the_end.enter_context(locked(settings.out))
            configuration = _configuration(settings, evaluator, dataset, fabric)
            folder.compare(configuration)
            found.append(folder.table())
            _check_data(folder.path, dataset, found[0].digests())
            for change in folder.configure(configuration):
                text = printable(f"Not as when this run began: {change}")
                console.print(text, style="yellow", markup=False)
            for note in dataset.notes:
                console.print(note, markup=False)
            for line in dataset.left_out.lines(_N_LEFT_OUT):
                console.print(f"Left out, {line}", markup=False)

        in_first(fabric, begin)
        table = found.pop() if found else folder.table()
        done = _Done(table.done(retry=settings.retry), table.digests(), table.begun())
        del table  # its memory is the samples' from here on
        _evaluate(settings, evaluator, dataset, folder, done, fabric, console)

        def end() -> None:
            _print_failures(console, folder.finish(dataset.loaders))

        in_first(fabric, end)
    return folder if fabric.is_global_zero else None


def _evaluate(
    settings: RunSettings,
    evaluator: Evaluator,
    dataset: Dataset,
    folder: RunFolder,
    done: _Done,
    fabric: Fabric,
    console: Console,
) -> None:
    """Does this process's share of what there is to do beside the rows that there are."""
    samples = list(dataset.loaders)[: settings.limit]
    missing = {sample: evaluator.missing(done.pairs.get(sample, ())) for sample in samples}
    share = [
        (place, sample)
        for place, sample in enumerate(samples)
        if missing[sample] and place % fabric.world_size == fabric.global_rank
    ]
    total = sum(len(names) for _, one in share for names in missing[one].values())
    console.print(
        f"{len(samples)} samples x {len(settings.methods)} methods x "
        f"{len(evaluator.measures)} measures; {total} results to do"
        + (f" in the first of {fabric.world_size} processes" if fabric.world_size > 1 else "")
    )
    fabric.barrier()  # everyone has read what is done before anyone writes
    failure: RowError | None = None
    try:
        with folder.writer(fabric.global_rank) as writer, progress_of(console, total) as progress:
            for place, sample in share:
                progress.now(printable(sample))
                expected = sum(len(names) for names in missing[sample].values())
                with fabric.autocast():
                    for row in evaluator.rows(
                        place,
                        sample,
                        partial(dataset.load, sample),
                        missing[sample],
                        folder,
                        begun=sample in done.begun,
                        digest=done.digests.get(sample),
                    ):
                        writer.write(row)
                        expected -= 1
                        progress.advance(1)
                progress.advance(expected)
    except RowError as error:
        failure = error
    end_together(fabric, failure)


def _check_data(folder: Path, dataset: Dataset, digests: Mapping[str, str]) -> None:
    """Looks at some samples with results again, spread over all.

    Raises:
        ConfigurationError: If one is another than before. The message names it.
    """
    known = [sample for sample in dataset.loaders if sample in digests]
    step = max(len(known) / _N_LOOKED_AT, 1)
    chosen = [known[int(index * step)] for index in range(min(len(known), _N_LOOKED_AT))]
    changed = [
        sample for sample in chosen if _content(dataset, sample) not in (None, digests[sample])
    ]
    if changed:
        names = ", ".join(map(printable, changed[:_N_NAMED]))
        raise ConfigurationError(
            f"{folder} holds the rows of other data: picture, class or annotation have "
            f"changed of {len(changed)} of {len(chosen)} samples that were looked at ({names}"
            f"{', ...' if len(changed) > _N_NAMED else ''}). Give another folder, or the former "
            "data to go on."
        )


def _content(dataset: Dataset, sample: str) -> str | None:
    """What tells the content of a sample; None if it cannot be loaded, which rows will say."""
    try:
        return content_digest(dataset.load(sample))
    except Exception:
        return None


def _print_failures(console: Console, table: RowTable) -> None:
    n_failed = table.count("failed")
    if n_failed:
        console.print(f"[red]{n_failed} of {table.count()} rows are failures; they say why.[/]")
    for row in table.rows("failed", limit=_N_NAMED):
        about = ", ".join(printable(name) for name in row.key if name)
        console.print(f"{about}: {printable(row.error or '')}", style="red", markup=False)


def prepare(settings: RunSettings, device: torch.device | str = "cpu") -> tuple[Evaluator, Dataset]:
    """Loads the network and finds the data.

    Args:
        settings (RunSettings): What is run.
        device (torch.device or str, optional): Where the network goes. Default: the CPU.

    Raises:
        ValueError: As in :func:`run`.
    """
    if settings.target not in get_args(TargetChoice):
        raise ValueError(f"The target is label or predicted, got {settings.target!r}.")
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


def _configuration(
    settings: RunSettings, evaluator: Evaluator, dataset: Dataset, fabric: Fabric
) -> dict[str, Any]:
    ids = "\n".join(dataset.loaders).encode("utf-8", "surrogatepass")
    device = (
        torch.cuda.get_device_name(fabric.device)
        if fabric.device.type == "cuda"
        else f"{fabric.device.type}, {torch.get_num_threads()} threads"
    )
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
        "environment": {**versions(_PACKAGES), "device": device},
    }
