"""A run: evaluates the samples that are not done yet, in one process or many."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lightning_fabric import Fabric
from rich.console import Console

from ..data import Dataset, printable
from .checks import content_digest
from .configuration import ConfigurationError
from .evaluate import Evaluator, Task
from .folder import RunFolder
from .lock import locked
from .processes import check_networks, end_together, in_first
from .progress import progress_of
from .rows import RowError
from .settings import RunSettings, choose_measures, configuration_of, prepare
from .table import RowTable

__all__ = ["RunSettings", "choose_measures", "prepare", "run"]

#: Samples with rows that are looked at again before a run goes on.
_N_LOOKED_AT = 100
#: Things of each kind that are named as left out; the report names more.
_N_LEFT_OUT = 10
#: Failures that are named at the end.
_N_NAMED = 5


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
            configuration = configuration_of(settings, evaluator, dataset, fabric.device)
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
        Task(
            place,
            sample,
            partial(dataset.load, sample),
            missing[sample],
            begun=sample in done.begun,
            digest=done.digests.get(sample),
        )
        for place, sample in enumerate(samples)
        if missing[sample] and place % fabric.world_size == fabric.global_rank
    ]
    total = sum(map(_count, share))
    console.print(
        f"{len(samples)} samples x {len(settings.methods)} methods x "
        f"{len(evaluator.measures)} measures; {total} results to do"
        + (f" in the first of {fabric.world_size} processes" if fabric.world_size > 1 else "")
    )
    fabric.barrier()  # everyone has read what is done before anyone writes
    failure: RowError | None = None
    try:
        with folder.writer(fabric.global_rank) as writer, progress_of(console, total) as progress:
            for first in range(0, len(share), evaluator.n_together):
                tasks = share[first : first + evaluator.n_together]
                progress.now(printable(tasks[0].name))
                expected = sum(map(_count, tasks))
                with fabric.autocast():
                    for row in evaluator.rows(tasks, folder):
                        writer.write(row)
                        expected -= 1
                        progress.advance(1)
                progress.advance(expected)
    except RowError as error:
        failure = error
    end_together(fabric, failure)


def _count(task: Task) -> int:
    """The results that a task should give."""
    return sum(map(len, task.missing.values()))


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
