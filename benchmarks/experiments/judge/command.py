"""``captum-groupcam judge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from ...names import VARIANT_NAMES
from ...options import split

__all__ = ["judge"]


def judge(
    out: Annotated[
        Path, typer.Option(help="The run's folder, from which a stopped run goes on.")
    ] = Path("out/judge"),
    variant: Annotated[
        str, typer.Option(help=f"What bears the class: {' or '.join(VARIANT_NAMES)}.")
    ] = "patch",
    measures: Annotated[
        list[str] | None,
        typer.Option(help="Names of measures; several in quotes. All that rank maps if none."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of scenes, the first of them.")] = 100,
    scenes: Annotated[int, typer.Option(min=1, help="Scenes that there are.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the measures.")] = 0,
    devices: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    strategy: Annotated[str, typer.Option(help="As in Lightning Fabric.")] = "auto",
) -> None:
    """Judges the measures: do they rank maps that are known to be good above worse ones?"""
    from captum_groupcam.methods import MethodSpec

    from ...data.planted_network import model_name
    from ...data.scenes import Variant
    from ...run.loop import RunSettings, run
    from .ranking import MAPS, csv_of, judged, markdown_of, rankable

    if variant not in VARIANT_NAMES:
        raise ValueError(f"Unknown variant {variant!r}: {' or '.join(VARIANT_NAMES)}.")
    folder = run(
        RunSettings(
            out,
            [MethodSpec.parse(name) for name in MAPS],
            measures=split(measures) or rankable(),
            dataset=f"planted:n={scenes},variant={variant}",
            model=model_name(cast(Variant, variant)),
            limit=limit,
            seed=seed,
            n_shown=0,
            accelerator="cpu",
            devices=devices,
            strategy=strategy,
        )
    )
    if folder is None:
        return
    found = judged(folder.rows(), folder.configuration["measures"])
    table = markdown_of(found)
    (folder.path / "table.md").write_text(table, encoding="utf-8")
    (folder.path / "table.csv").write_text(csv_of(found), encoding="utf-8")
    typer.echo(table)
    typer.echo(folder.path / "table.md")
