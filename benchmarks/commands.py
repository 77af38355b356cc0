"""The commands of the benchmark.

Nothing heavy is imported before a command runs, so that ``--help`` is there at once.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from captum_groupcam.apps.console import say
from captum_groupcam.apps.names import OFFERED_METHODS
from captum_groupcam.apps.options import network_options, with_options

from .errors import ConfigurationError, DeviceError, RowError
from .experiments.accelerator.command import accelerator
from .experiments.finetune.command import finetune
from .experiments.judge.command import judge
from .experiments.planted.command import planted
from .experiments.reproduce.command import reproduce
from .names import COMPARISON_NAMES, CONTROL_NAMES, STUDY_NAMES
from .options import run_options

__all__ = ["COMMANDS", "app"]

_Methods = Annotated[
    list[str] | None,
    typer.Option(
        help=f"Any of {', '.join([*OFFERED_METHODS, *CONTROL_NAMES])}, or package.module:object "
        "or FILE.py:object of your own; with options as in rise:n_masks=1000,seed=1; several in "
        "quotes or by repeating the option; captum stands for all that Captum has. Otherwise all "
        "of these."
    ),
]


@with_options(run=run_options, network=network_options)
def compare(methods: _Methods = None, *, run: dict[str, Any], network: dict[str, Any]) -> None:
    """Compares methods by measures, and writes a report."""
    from .experiments import runs

    runs.compare(methods, run, network)


@with_options(run=run_options, network=network_options)
def ablate(
    studies: Annotated[
        list[str] | None,
        typer.Option(help=f"Any of {', '.join(STUDY_NAMES)}; several in quotes. Otherwise all."),
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option(help="Dotted names of layers to compare, in quotes.")
    ] = None,
    *,
    run: dict[str, Any],
    network: dict[str, Any],
) -> None:
    """Varies the options of Group-CAM one at a time, and writes a report."""
    from .experiments import runs

    runs.ablate(studies, layers, run, network)


@with_options(run=run_options, network=network_options)
def sanity(
    methods: Annotated[list[str] | None, typer.Option(help="As in compare.")] = None,
    *,
    run: dict[str, Any],
    network: dict[str, Any],
) -> None:
    """Re-initialises the network's layers, compares the maps, and writes a report."""
    from .experiments import runs

    runs.sanity(methods, run, network)


@with_options(run=run_options, network=network_options)
def speed(
    names: Annotated[
        list[str] | None,
        typer.Argument(help=f"Any of: methods, {', '.join(COMPARISON_NAMES)}. All if none."),
    ] = None,
    methods: Annotated[list[str] | None, typer.Option(help="As in compare.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that PyTorch may use.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of a comparison that count.")] = 3,
    *,
    run: dict[str, Any],
    network: dict[str, Any],
) -> None:
    """Times every method over the data, and compares run times as ratios within one run."""
    from .experiments import runs

    runs.speed(names, methods, threads, rounds, run, network)


def memory(
    of: Annotated[
        str, typer.Argument(help="maps: of explaining images. reports: of reports of large runs.")
    ] = "maps",
    samples: Annotated[
        int, typer.Option(min=1, help="Samples of the large run, 70 kB of disk each.")
    ] = 50_000,
) -> None:
    """Measures the peak of memory, each case in a process of its own."""
    if of == "reports":
        from .experiments.large_reports import run_reports

        run_reports(samples)
    elif of == "maps":
        from .experiments.memory import run_memory

        run_memory()
    else:
        raise ValueError(f"Memory is measured of maps or reports, got {of!r}.")


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("report"),
    reference: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="What methods are compared with. Otherwise group_cam."),
    ] = None,
) -> None:
    """Merges runs and writes their report again."""
    from .report import write_report

    typer.echo(write_report(folders, out, reference))


def attack(
    themes: Annotated[
        list[str] | None, typer.Argument(help="What is attacked, 'runs' say. All if none.")
    ] = None,
    *,
    small: Annotated[
        bool, typer.Option("--small", help="A few tries of each kind, as in the tests.")
    ] = False,
) -> None:
    """Attacks runs, files and calls, and counts the damage: none is expected."""
    from .experiments.attack.command import attack

    attack(themes, small=small)


@contextmanager
def _ending(command: str) -> Iterator[None]:
    """What the user can put right, in a line: status 2 if it was typed, else 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every terminal knows every character
            stream.reconfigure(errors="backslashreplace")
    errors = Console(stderr=True)
    try:
        yield
    except KeyboardInterrupt:
        say(errors, "Stopped. The same command continues from here.")
        raise typer.Exit(130) from None
    except (ConfigurationError, ValueError, ImportError, OSError) as error:
        if isinstance(error, ImportError):
            error = _missing(command, error)
        say(errors, " ".join(str(error).split()), "red")
        raise typer.Exit(2) from error
    except (RowError, DeviceError) as error:
        say(errors, " ".join(str(error).split()), "red")
        raise typer.Exit(1) from error


def _missing(command: str, error: ImportError) -> ImportError:
    """The error, with what to install where it does not say so itself."""
    if "libGL" in str(error):  # opencv-python, which quantus brings
        return ImportError(
            f"{command} cannot import cv2, which lacks libGL as on most servers: "
            "pip install --force-reinstall --no-deps opencv-python-headless"
        )
    if "pip install" in str(error) or not isinstance(error, ModuleNotFoundError):
        return error
    return ModuleNotFoundError(
        f"{command} needs the package {(error.name or '').partition('.')[0]}: "
        "pip install 'captum_groupcam[bench]'",
        name=error.name,
    )


def _ended(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def with_ending(**options: Any) -> None:
        with _ending(command.__name__):
            command(**options)

    return with_ending


#: What ``captum-groupcam`` offers, too, where the benchmark is installed.
COMMANDS = tuple(
    _ended(command)
    for command in (
        *(compare, ablate, sanity, speed, memory, accelerator, finetune, judge, planted),
        *(report, reproduce),
    )
)

app = typer.Typer(
    help="Compares saliency methods.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (*COMMANDS, _ended(attack)):
    app.command()(_command)
