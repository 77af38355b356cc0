"""The page: each table and figure of the paper, what it says, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...run.configuration import versions
from ...run.gallery import file_name
from ...run.rows import write_atomically
from .measuring import FEWEST, Found, Plan, measure
from .paper import EXHIBITS, Exhibit

__all__ = ["write_page"]

_PACKAGES = ("captum_groupcam", "captum", "torch", "torchvision", "numpy")


def write_page(names: Sequence[str], plan: Plan) -> Path | None:
    """Measures exhibits one after the other; the page is written anew after each.

    Args:
        names (sequence of str): Names of :data:`~benchmarks.experiments.reproduce.paper.EXHIBITS`.
        plan (Plan): On what.

    Returns:
        Path: The page; None in all processes but the first.
    """
    found: dict[str, Found] = {}
    path = plan.out / "reproduction.md"
    for name in names:
        one = measure(name, EXHIBITS[name], plan)
        if one is not None:
            found[name] = one
            (plan.out / "figures").mkdir(parents=True, exist_ok=True)
            for figure in one.figures:
                write_atomically(_figure(plan.out, name, figure.name), figure.content)
            write_atomically(path, _page(found, plan).encode())
    return path if found else None


def _figure(out: Path, exhibit: str, name: str) -> Path:
    return out / "figures" / f"{exhibit}-{file_name(name)}.svg"


def _page(found: dict[str, Found], plan: Plan) -> str:
    share = f"{100 * plan.scale:g} %"
    lines = [
        "# The paper, measured again",
        "",
        f"On {share} of the paper's images, at least {FEWEST} each. Intervals are at 95 %. "
        f"{_packages()}.",
        "",
        "| | the paper says | measured here | images | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, one in found.items():
        exhibit = EXHIBITS[name]
        lines.append(
            f"| [{exhibit.title}](#{name}) | {exhibit.says} | {one.text} | {one.n} | "
            f"{one.verdict} |"
        )
    for name, one in found.items():
        lines += _section(name, EXHIBITS[name], one, plan)
    return "\n".join(lines) + "\n"


def _packages() -> str:
    return ", ".join(f"{name} {number}" for name, number in versions(_PACKAGES).items())


def _section(name: str, exhibit: Exhibit, one: Found, plan: Plan) -> list[str]:
    network = plan.network(exhibit)
    instead = "" if network == exhibit.network else f" in place of {exhibit.network}"
    lines = [
        "",
        f"({name})=",
        f"## {exhibit.title}",
        "",
        f"The paper: {exhibit.says} Measured: {one.text} **{one.verdict.capitalize()}.**",
        "",
        f"Network: {network}{instead}. Images: {one.n}; the paper's: {_images(exhibit)}. "
        f"`captum-groupcam reproduce --only {name}`",
        "",
        one.table,
        *[""] * bool(one.figures),
    ]
    for figure in one.figures:  # side by side, as far as there is room
        file = _figure(plan.out, name, figure.name).relative_to(plan.out)
        lines.append(f"![{figure.text}]({file.as_posix()})")
    return lines


def _images(exhibit: Exhibit) -> str:
    return f"{exhibit.n_images:,}" + (" of each class" if exhibit.data == "train" else "")
