"""``captum-groupcam reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from captum_groupcam.apps.options import network_details, with_options

from ...options import fabric_options, split
from .paper import EXHIBITS

__all__ = ["reproduce"]


@with_options(details=network_details, fabric=fabric_options)
def reproduce(
    imagenet: Annotated[
        Path | None,
        typer.Option(help="ImageNet's validation pictures, as compare --dataset imagenet."),
    ] = None,
    coco: Annotated[
        Path | None, typer.Option(help="COCO 2017, as compare --dataset coco takes it.")
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(help="A folder with train/ and val/, each with a folder a class."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Any of {', '.join(EXHIBITS)}; several in quotes. Otherwise all."),
    ] = None,
    scale: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the paper's images that is used.")
    ] = 1.0,
    model: Annotated[
        str | None, typer.Option(help="A network in place of the paper's, as in compare.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="The folder of results. A stopped run continues from it.")
    ] = Path("out/reproduce"),
    *,
    details: dict[str, Any],
    fabric: dict[str, Any],
) -> None:
    """Measures what the paper reports, and writes a page that compares the two."""
    chosen = split(only) or list(EXHIBITS)
    unknown = [name for name in chosen if name not in EXHIBITS]
    if unknown:
        raise ValueError(f"Unknown: {', '.join(unknown)}; known are {', '.join(EXHIBITS)}.")
    roots = {"imagenet": imagenet, "coco": coco, "train": train}
    for name in chosen:
        kind = EXHIBITS[name].data
        if roots[kind] is None:
            raise ValueError(f"{name} needs --{kind} DIR; leave it out with --only.")
    from .measuring import Plan
    from .page import write_page

    given = {kind: root for kind, root in roots.items() if root is not None}
    page = write_page(chosen, Plan(out, given, scale, model, details, fabric))
    if page is not None:
        typer.echo(page)
