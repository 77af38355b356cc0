"""The command line: ``captum-groupcam``.

Nothing heavy is imported before a command runs, so that ``--help`` is there at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from captum_groupcam.apps.benchmark import benchmark_commands
from captum_groupcam.apps.console import say, usage_errors
from captum_groupcam.apps.names import offered_names
from captum_groupcam.apps.options import network_details, network_options, with_options

__all__ = ["app"]

app = typer.Typer(
    help="Shows which part of an image made a network decide as it did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class _WithMethods(TyperCommand):
    """A command whose help lists the methods that are offered when it is shown."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for parameter in self.params:
            if parameter.name == "method":
                parameter.help = _method_help()  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


def _method_help() -> str:
    return (
        f"One of {', '.join(offered_names())}, or package.module:object or FILE.py:object of your "
        "own; with options as in rise:n_masks=1000,seed=1. Or all of them in one picture: all."
    )


@app.command(cls=_WithMethods)
@with_options(network=network_options)
def explain(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Image files, and folders of them."),
    ],
    target: Annotated[
        str | None,
        typer.Option(help="Index or name of a class. Otherwise the likeliest."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(help=_method_help()),
    ] = "group_cam",
    groups: Annotated[
        bool, typer.Option("--groups", help="Draw the groups that speak most for the class, too.")
    ] = False,
    curves: Annotated[
        bool,
        typer.Option("--curves", help="Draw deletion and insertion, too: 200 passes a map."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out"),
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that this program has not written.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ... Otherwise cuda if there is one.")
    ] = None,
    accelerate: Annotated[
        bool | None,
        typer.Option(
            help="Ask a copy of the network with folded normalisation, the same to rounding. "
            "Otherwise where it pays: from 500 passes on.",
        ),
    ] = None,
    *,
    network: dict[str, Any],
) -> None:
    """Prints the top 5 classes of each image and writes an overlay of what decided."""
    with usage_errors():
        from captum_groupcam.apps._explain import Explaining

        explaining = Explaining.checked(
            network,
            method=method,
            target=target,
            groups=groups,
            curves=curves,
            out=out,
            force=force,
            device=device,
            accelerate=accelerate,
        )
    if not explaining.explain(images):
        raise typer.Exit(1)


@app.command()
@with_options(details=network_details)
def explore(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A network on offer, as for 'explain', with '=' and weights if not the default. "
            "Can be repeated. Otherwise efficientnet_lite0.",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A method of your own that is offered beside the others: package.module:object "
            "or FILE.py:object. Can be repeated.",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. With 0.0.0.0, others can use this computer."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Otherwise the first free from 7860.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ... Otherwise cuda if there is one.")
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=1, help="Seconds that one request may compute.")
    ] = 300,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name that leads to the page, of a proxy in front of it, say."),
    ] = None,
    *,
    details: dict[str, Any],
) -> None:
    """Opens a page to explain images on: classes, methods side by side, groups, curves, code."""
    with usage_errors():
        from captum_groupcam.apps._explain import find_device
        from captum_groupcam.apps.explorer import explore as serve
        from captum_groupcam.models import load_model

        names, place = model or ["efficientnet_lite0"], find_device(device)
        if details and len(names) > 1:
            raise ValueError(
                f"--{next(iter(details)).replace('_', '-')} is of one network, and there are "
                f"{len(names)}: describe each in a file, model.toml."
            )
        serve(
            [load_model(names[0], device=place, **details)] if details else names,
            methods=method or (),
            host=host,
            port=port,
            device=place,
            time_limit=time_limit,
            allowed_hosts=allow_host or (),
        )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The picture that is written.")] = Path("demo.png"),
    n_groups: Annotated[int, typer.Option(min=1, help="Groups of channels.")] = 32,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a file that this program has not written.")
    ] = False,
) -> None:
    """Explains sample photos with EfficientNet-Lite0: Group-CAM beside Grad-CAM, in one picture."""
    with usage_errors():
        from captum_groupcam.apps._figures import demo_figure
        from captum_groupcam.visualization import is_own_picture, save_figure

        if not force and os.path.lexists(out) and not is_own_picture(out):
            raise ValueError(
                f"{out} is there, and not known as a picture of this program: give another --out, "
                "or --force to overwrite it."
            )
        path = save_figure(demo_figure(n_groups), out)
    say(Console(), str(path.resolve()))


@app.command()
def doctor() -> None:
    """Prints versions, devices and what works, to go with a bug report."""
    from captum_groupcam.apps._doctor import diagnosis

    console = Console()
    for line in diagnosis():
        say(console, line)


for _command in benchmark_commands():
    app.command(rich_help_panel="Benchmark (with the extra 'bench')")(_command)
