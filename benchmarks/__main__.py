"""``python -m benchmarks``: the command line of the benchmarks."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import typer
from lightning_fabric import Fabric
from rich.console import Console

from benchmarks.controls import CONTROLS
from benchmarks.data import Dataset, Sample, printable
from benchmarks.experiments.ablation import STUDIES, chosen_studies
from benchmarks.experiments.attack.command import attack
from benchmarks.experiments.finetune import finetune
from benchmarks.experiments.memory import run_memory
from benchmarks.experiments.sanity import randomisation_figure
from benchmarks.experiments.speed import COMPARISONS, run_speed
from benchmarks.measures.randomisation import Order
from benchmarks.report import write_report
from benchmarks.run.configuration import ConfigurationError
from benchmarks.run.evaluate import DeviceError
from benchmarks.run.folder import RunFolder
from benchmarks.run.loop import RunSettings, prepare, run
from benchmarks.run.options import split, with_run_options
from benchmarks.run.rows import RowError
from captum_groupcam.methods import MethodSpec, offered_methods
from captum_groupcam.options import split_text

#: What a sanity check compares: a method that follows the weights, and those that should.
_SANITY_METHODS = ("group_cam", "grad_cam", "guided_backprop", "integrated_gradients", "edges")

#: What of ``speed`` is a run: the seconds and queries of each method.
_EACH_METHOD = "methods"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What the user can put right, as a message; anything else as it is."""
    try:
        yield
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped. The same command goes on from here.")
        raise typer.Exit(130) from None
    except (
        ConfigurationError,
        RowError,
        DeviceError,
        ValueError,
        ModuleNotFoundError,
        OSError,  # says which file and why
    ) as error:
        message = "\n".join(map(printable, str(error).splitlines()))
        Console(stderr=True, highlight=False, markup=False).print(message, style="red")
        raise typer.Exit(1) from error


@app.callback()
def benchmarks() -> None:
    """Compares saliency methods."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every terminal knows every character
            stream.reconfigure(errors="backslashreplace")


@app.command()
@with_run_options
def compare(
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Any of {', '.join([*offered_methods(), *CONTROLS])}, with options as in "
            "rise:n_masks=1000,seed=1; several in quotes or by repeating the option. "
            "Otherwise all but research."
        ),
    ] = None,
    *,
    run_options: dict[str, Any],
) -> None:
    """Compares methods by measures, and writes a report."""
    with _clear_errors():
        _run_and_report(RunSettings(methods=_specs(methods), **run_options))


@app.command()
@with_run_options
def ablate(
    studies: Annotated[
        list[str] | None,
        typer.Option(help=f"Any of {', '.join(STUDIES)}; several in quotes. Otherwise all."),
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option(help="Dotted names of layers to compare, in quotes.")
    ] = None,
    *,
    run_options: dict[str, Any],
) -> None:
    """Varies the options of Group-CAM one at a time, and writes a report."""
    with _clear_errors():
        chosen = chosen_studies(split(studies), split(layers))
        specs = {str(spec): spec for study in chosen.values() for spec in study}
        labels = {name: [str(spec) for spec in study] for name, study in chosen.items()}
        _run_and_report(RunSettings(methods=list(specs.values()), studies=labels, **run_options))


@app.command()
@with_run_options
def sanity(
    methods: Annotated[list[str] | None, typer.Option(help="As in compare.")] = None,
    *,
    run_options: dict[str, Any],
) -> None:
    """Draws the network's layers anew and compares the maps, and writes a report."""
    with _clear_errors():
        specs = _specs(methods, _SANITY_METHODS)
        orders = get_args(Order)
        run_options["measures"] = [f"ParameterRandomisation.{order}" for order in orders]
        settings = RunSettings(methods=specs, **run_options)
        folder = run(settings)
        if folder is None:
            return
        evaluator, dataset = prepare(settings)
        sample = _first_measured(folder, dataset)
        for order in orders:
            name = f"{order} randomisation"
            if sample is not None and not folder.gallery.has_figure(name):
                figure = randomisation_figure(evaluator, sample, order)
                folder.gallery.keep_figure(name, figure)
        typer.echo(write_report([folder.path], folder.path / "report"))


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("report"),
) -> None:
    """Merges runs and writes their report anew."""
    with _clear_errors():
        typer.echo(write_report(folders, out))


@app.command()
@with_run_options
def speed(
    names: Annotated[
        list[str] | None,
        typer.Argument(help=f"Any of: {', '.join((_EACH_METHOD, *COMPARISONS))}. All if none."),
    ] = None,
    methods: Annotated[list[str] | None, typer.Option(help="As in compare.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that PyTorch may use.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of a comparison that count.")] = 3,
    *,
    run_options: dict[str, Any],
) -> None:
    """Times every method over the data, and compares run times as ratios within one run."""
    chosen = names or [_EACH_METHOD, *COMPARISONS]
    with _clear_errors():
        unknown = set(chosen) - {_EACH_METHOD, *COMPARISONS}
        if unknown:
            raise ValueError(f"Unknown: {', '.join(unknown)}; known are {', '.join(COMPARISONS)}.")
        torch.set_num_threads(threads)
        if _EACH_METHOD in chosen:
            specs = _specs(methods)
            # The cost of an explanation is a row of every run.
            _run_and_report(RunSettings(methods=specs, **(run_options | {"measures": []})))
        run_speed(
            [name for name in chosen if name != _EACH_METHOD],
            model=run_options["model"],
            weights=run_options["weights"],
            threads=threads,
            rounds=rounds,
            device=Fabric(accelerator=run_options["accelerator"], devices=1).device,
            out=run_options["out"] / "speed.json",
        )


@app.command()
def memory() -> None:
    """Measures the peak of memory, each case in a process of its own."""
    run_memory()


def _specs(texts: list[str] | None, default: Sequence[str] = ()) -> list[MethodSpec]:
    """The methods that were chosen; if none, the default, or all but research."""
    chosen = [word for text in texts or () for word in split_text(text, " ")]
    try:
        return [
            MethodSpec.parse(text) for text in chosen or default or [*offered_methods(), *CONTROLS]
        ]
    except TypeError as error:  # an option that there is not
        raise ValueError(str(error)) from error


def _first_measured(folder: RunFolder, dataset: Dataset) -> Sample | None:
    """The first sample with results of all methods, so that there are maps to draw."""
    failed = {row.sample for row in folder.rows() if row.error}
    for row in folder.rows():
        if row.sample not in failed and row.sample in dataset.loaders:
            return dataset.load(row.sample)
    return None


def _run_and_report(settings: RunSettings) -> None:
    folder = run(settings)
    if folder is not None:
        typer.echo(write_report([folder.path], folder.path / "report"))


app.command()(_clear_errors()(finetune))
app.command()(_clear_errors()(attack))

if __name__ == "__main__":
    sys.exit(app())
