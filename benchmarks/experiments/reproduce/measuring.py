"""Measures what an exhibit of the paper shows, and says whether it agrees with the paper."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from captum_groupcam.methods import MethodSpec
from captum_groupcam.metrics.bootstrap import Interval, bootstrap_mean

from ...report.figures import Figure
from ...report.files import number, spread
from ...report.merge import merge
from ...report.page import Chapter, chapter
from ...report.tables import ALL_SAMPLES, Cell, Table
from ...run.folder import RunFolder
from ...run.loop import RunSettings, run
from ..ablation import STUDIES
from ..finetune.arms import run_arms
from ..finetune.results import crossed_bootstrap
from ..finetune.settings import FineTuneSettings
from .paper import Exhibit

__all__ = ["AGREES", "DISAGREES", "FEWEST", "OPEN", "Found", "Plan", "measure"]

AGREES, DISAGREES, OPEN = "agrees", "does not agree", "not decided"

_COMPARED = ("group_cam", "grad_cam", "grad_cam_plus_plus", "score_cam", "rise")
_POINTING = ("group_cam", "grad_cam", "grad_cam_plus_plus", "rise")
_SANITY = ("group_cam", "grad_cam", "edges")
#: Values of theta that count as near the paper's optimum of 70.
_NEAR = (60, 70, 80)
#: Images of an exhibit, at least: fewer do not differ significantly, however they differ.
FEWEST = 6
_FEWEST_OF_A_CLASS = 2


@dataclass(frozen=True)
class Plan:
    """Where the data are, and how much of them is used.

    Args:
        out (Path): The folder of all runs.
        roots (mapping): ``imagenet``, ``coco`` and ``train`` to their folders, as far as given.
        scale (float): The share of the paper's images.
        model (str, optional): A network instead of the paper's. Default: None.
        details (mapping): Its weights, layer, class names and preprocessing, as far as given.
        fabric (mapping): Arguments of :class:`lightning_fabric.Fabric`.
    """

    out: Path
    roots: Mapping[str, Path]
    scale: float = 1.0
    model: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    fabric: Mapping[str, Any] = field(default_factory=dict)

    def count(self, exhibit: Exhibit) -> int:
        """How many of the paper's images are used: at least so many that they can decide."""
        fewest = _FEWEST_OF_A_CLASS if exhibit.data == "train" else FEWEST
        return min(max(fewest, round(exhibit.n_images * self.scale)), exhibit.n_images)

    def network(self, exhibit: Exhibit) -> str:
        """The name of the network."""
        return self.model or exhibit.network


@dataclass(frozen=True)
class Found:
    """What was measured.

    Args:
        text (str): In a sentence.
        verdict (str): :data:`AGREES`, :data:`DISAGREES` or :data:`OPEN`.
        n (int): Number of images.
        table (str): The values in Markdown.
        figures (sequence of Figure, optional): Drawings. Default: none.
    """

    text: str
    verdict: str
    n: int
    table: str
    figures: Sequence[Figure] = ()


def measure(name: str, exhibit: Exhibit, plan: Plan) -> Found | None:
    """Does what is not done yet, and looks at it.

    Args:
        name (str): The exhibit's name, which its folder has, too.
        exhibit (Exhibit): What is measured.
        plan (Plan): On what.

    Returns:
        Found: What was found; None in all processes but the first.

    Raises:
        ValueError: If the data or the network cannot be used.
    """
    out = plan.out / name
    if exhibit.kind == "finetune":
        return _fine_tuned(exhibit, plan, out)
    of_kind: dict[str, tuple[Sequence[MethodSpec], list[str], Callable[..., Found]]] = {
        "compare": (_specs(_COMPARED), ["DeletionInsertion"], _highest),
        "theta": (STUDIES["theta"], ["DeletionInsertion"], _optimum),
        "n_groups": (STUDIES["n_groups"], ["DeletionInsertion"], _gain),
        "pointing": (_specs(_POINTING), ["PointingGame"], _ahead),
        "sanity": (_specs(_SANITY), ["ParameterRandomisation.cascading"], _depends),
        "speed": (_specs(_COMPARED), [], _seconds),
    }
    methods, measures, look = of_kind[exhibit.kind]
    root = plan.roots[exhibit.data]
    studies: dict[str, list[str]] | None = None
    if exhibit.kind in STUDIES:
        studies = {exhibit.kind: [str(spec) for spec in methods]}
    folder = run(
        RunSettings(
            out=out,
            methods=methods,
            measures=measures,
            dataset=_dataset(exhibit, root),
            root=root,
            model=plan.network(exhibit),
            limit=plan.count(exhibit),
            n_shown=0,
            studies=studies,
            # What a map takes is that of one alone.
            samples_per_batch=1 if exhibit.kind == "speed" else None,
            **plan.details,
            **plan.fabric,
        )
    )
    if folder is None:
        return None
    (section,) = merge([RunFolder(out)])
    return look(chapter(section))


def _specs(names: Sequence[str]) -> list[MethodSpec]:
    return [MethodSpec.parse(name, importing=True) for name in names]


def _dataset(exhibit: Exhibit, root: Path) -> str:
    if exhibit.data == "coco":
        return "coco"
    return "folder" if (root / "boxes.csv").is_file() else "imagenet"


def _highest(found: Chapter) -> Found:
    table, score = _table(found, "over_all")
    cells = {method: table.cells[method, score] for method in table.methods}
    above = [method for method, cell in cells.items() if cell.significant and cell.better]
    ahead = max(cells, key=lambda method: cells[method].interval.mean)
    behind = [method for method, cell in cells.items() if cell.significant and not cell.better]
    if above:
        verdict = DISAGREES
    elif ahead == table.reference and len(behind) == len(cells) - 1:
        verdict = AGREES
    else:
        verdict = OPEN
    text = (
        f"The highest mean is that of {ahead}. Significantly above group_cam: "
        f"{_listed(above)}; significantly below: {_listed(behind)}."
    )
    return Found(text, verdict, _n(cells), _values(table, score), _drawn(found.curves))


def _optimum(found: Chapter) -> Found:
    table, score = _table(found, "over_all")
    thetas = {_theta(method): table.cells[method, score] for method in table.methods}
    best = max(thetas, key=lambda theta: thetas[theta].interval.mean)
    differing = {theta: cell.better for theta, cell in thetas.items() if cell.significant}
    above = [theta for theta, better in differing.items() if better]
    below = [theta for theta, better in differing.items() if not better]
    if best not in _NEAR:
        verdict = DISAGREES if above else OPEN
    else:
        verdict = AGREES if best in above or {min(thetas), max(thetas)} <= {*below} else OPEN
    text = (
        f"The highest mean is at theta = {best}; significantly above 70: "
        f"{_listed(map(str, above))}; significantly below: {_listed(map(str, below))}."
    )
    return Found(text, verdict, _n(thetas), _values(table, score), _studied(found))


def _theta(method: str) -> int:
    return int(float(method.partition("denoise_percentile=")[2] or 70))


def _drawn(figures: Mapping[str, Sequence[Figure]]) -> list[Figure]:
    return [figure for several in figures.values() for figure in several]


def _studied(found: Chapter) -> list[Figure]:
    return [figure for study in found.studies for figure in study.figures]


def _less(
    found: Chapter, measure: str, method: str, what: str, figures: Sequence[Figure] = ()
) -> Found:
    table, score = _table(found, measure)
    cells = {one: table.cells[one, score] for one in table.methods}
    return Found(
        f"{what}: {_turned(cells[method])}.",
        _sign(cells[method]),
        _n(cells),
        _values(table, score),
        figures,
    )


def _gain(found: Chapter) -> Found:
    what = "G = 32 less G = 1"
    return _less(found, "over_all", "group_cam:n_groups=1", what, _studied(found))


def _ahead(found: Chapter) -> Found:
    return _less(found, "PointingGame", "grad_cam", "group_cam less grad_cam")


def _depends(found: Chapter) -> Found:
    table, score = _table(found, "cascading.spearman")
    cells = {method: table.cells[method, score] for method in table.methods}
    ours, cell = cells["group_cam"].interval, cells["edges"]
    edges = cell.interval  # of the picture's own edges, which no weight changes
    text = (
        "The rank correlation with the map of the trained network, over the layers, is "
        f"{number(ours.mean, 2)} {spread(ours, 2)}; that of edges, which no weight changes, is "
        f"{number(edges.mean, 2)} {spread(edges, 2)}."
    )
    return Found(text, _sign(cell), _n(cells), _values(table, score), _drawn(found.sanity))


def _seconds(found: Chapter) -> Found:
    table, score = _table(found, "seconds")
    cells = {method: table.cells[method, score] for method in table.methods}
    seconds = cells["group_cam"].interval
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else "a CPU"
    text = f"{number(seconds.mean, 3)} s {spread(seconds, 3)} on {device}."
    verdict = OPEN if not on_gpu else AGREES if seconds.mean <= 0.09 else DISAGREES
    return Found(text, verdict, _n(cells), _values(table, score))


def _fine_tuned(exhibit: Exhibit, plan: Plan, out: Path) -> Found | None:
    settings = FineTuneSettings(
        data=plan.roots[exhibit.data],
        network={"name": plan.network(exhibit), **plan.details},
        keep_head=True,
    )
    if plan.scale < 1:
        count = plan.count(exhibit)
        # So many fill a batch, whatever the number of classes; a picture moves weights as far.
        batch_size = min(settings.batch_size, count)
        settings = replace(
            settings,
            train_per_class=count,
            batch_size=batch_size,
            learning_rate=settings.learning_rate * batch_size / settings.batch_size,
            epochs=max(2, round(settings.epochs * plan.scale)),
        )
    run_arms(settings, ["plain", "group_cam"], 1, out, **plan.fabric)
    if not Fabric(**plan.fabric).is_global_zero:
        return None
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    right = {
        arm: np.array([100.0 * (line["label"] == line[f"{arm}-0"]) for line in lines])
        for arm in ("plain", "group_cam")
    }
    gain = crossed_bootstrap((right["group_cam"] - right["plain"])[None])
    if plan.scale < 1:
        verdict = OPEN  # a few steps on a few pictures are another experiment
    else:
        verdict = AGREES if gain.low > 0 else DISAGREES if gain.high < 0 else OPEN
    means = {arm: bootstrap_mean(values) for arm, values in right.items()}
    rows = [f"| {arm} | {number(m.mean, 2)} {spread(m, 2)} | {m.n} |" for arm, m in means.items()]
    text = (
        f"With Group-CAM as augmentation less without: {number(gain.mean, 2, signed=True)} "
        f"{spread(gain, 2, signed=True)} points, after {settings.epochs} epochs with "
        f"{settings.train_per_class or 'all'} pictures of each class."
    )
    table = "\n".join(["| arm | top-1 in % | n |", "| --- | --- | --- |", *rows])
    return Found(text, verdict, len(lines), table)


def _table(found: Chapter, source: str) -> tuple[Table, str]:
    """The table that has a score, which is given by its own name or by that of its measure."""
    # Over all images, or over those that all methods have.
    fair = [table for table in reversed(found.tables) if table.subset == ALL_SAMPLES]
    for table in (*(study.table for study in found.studies), *fair):
        for score in table.scores:
            if not score.per_class and source in (score.source, score.measure):
                return table, score.name
    raise ValueError(f"No image has given a value of {source}: see the report's failures.")


def _n(cells: Mapping[Any, Cell]) -> int:
    return max(cell.interval.n for cell in cells.values())


def _sign(cell: Cell) -> str:
    """Whether what is compared with Group-CAM is behind it, as the paper says."""
    if not cell.significant:
        return OPEN
    return DISAGREES if cell.better else AGREES


def _turned(cell: Cell) -> str:
    """The difference of Group-CAM to what is compared with it."""
    d = cell.difference
    if d is None:
        return "no image has both"
    turned = Interval(-d.mean, -d.high, -d.low, d.n)
    return f"{number(turned.mean, 3, signed=True)} {spread(turned, 3, signed=True)}"


def _values(table: Table, score: str) -> str:
    lines = [f"| method | {score} | n | less {table.reference} |", "| --- | --- | --- | --- |"]
    for method in table.methods:
        cell = table.cells[method, score]
        d = cell.difference
        difference = (
            "" if d is None else f"{number(d.mean, 3, signed=True)} {spread(d, 3, signed=True)}"
        )
        lines.append(
            f"| {method} | {number(cell.interval.mean, 3)} {spread(cell.interval, 3)} | "
            f"{cell.interval.n} | {difference} |"
        )
    return "\n".join(lines)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
