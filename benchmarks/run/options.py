"""The options that every command about a run has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from benchmarks.data import DATASETS
from benchmarks.measures.registry import DEFAULT_MEASURES, MEASURES

__all__ = ["split", "with_run_options"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _options(
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder, from which a stopped run goes on. Else out/COMMAND."),
    ] = None,
    dataset: Annotated[str, typer.Option(help=f"One of {', '.join(DATASETS)}.")] = "bundled",
    root: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    model: Annotated[
        str, typer.Option(help="efficientnet_lite0, a torchvision classifier, or timm:NAME.")
    ] = "efficientnet_lite0",
    weights: Annotated[str | None, typer.Option(help="A weights name, a file, or random.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="Dotted name of the layer. Found if none.")
    ] = None,
    measures: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Any of {', '.join(MEASURES)}; several in quotes or by repeating the option. "
            f"Otherwise {', '.join(DEFAULT_MEASURES)}, as far as the data have boxes."
        ),
    ] = None,
    target: Annotated[
        str, typer.Option(help="The class to explain: label or predicted.")
    ] = "label",
    samples: Annotated[
        str | None,
        typer.Option(help="Which samples, as a slice: 0::2 for every other one, 1::2 the others."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of samples, the first of them.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the measures.")] = 0,
    n_shown: Annotated[int, typer.Option(min=0, help="Samples whose pictures are kept.")] = 8,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network (needs a C++ compiler).")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed.")] = False,
    accelerator: Annotated[str, typer.Option(help="As in Lightning Fabric.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    strategy: Annotated[str, typer.Option(help="As in Lightning Fabric.")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true, 16-mixed or bf16-mixed.")] = "32-true",
) -> None:
    """Holds the signature."""


def with_run_options(command: _Function) -> Callable[..., Any]:
    """Adds the options of a run to a command.

    Args:
        command (callable): Takes its own options and ``run_options``, a dict of the arguments of
            :class:`~benchmarks.run.loop.RunSettings`.
    """
    shared = inspect.signature(_options).parameters
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "run_options"]

    @functools.wraps(command)
    def with_options(**options: Any) -> Any:
        run_options = {name: options.pop(name) for name in shared}
        run_options["out"] = run_options["out"] or Path("out") / command.__name__
        run_options["measures"] = split(run_options["measures"]) or None
        return command(**options, run_options=run_options)

    hints = get_type_hints(command, include_extras=True)
    hints |= get_type_hints(_options, include_extras=True)
    signature = inspect.Signature(
        [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
            for parameter in (*own, *shared.values())
        ]
    )
    with_options.__signature__ = signature  # type: ignore[attr-defined]
    with_options.__annotations__ = {name: hints[name] for name in signature.parameters}
    return with_options


def split(values: list[str] | None) -> list[str]:
    """Words of all values of an option: ``["a b", "c"]`` to ``["a", "b", "c"]``."""
    return [word for value in values or () for word in value.split()]
