"""The page of a report: one HTML file that holds everything it shows."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import markupsafe
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import files
from .figures import (
    Figure,
    cost_figures,
    curve_figures,
    sanity_figures,
    study_figures,
    varied,
)
from .gallery import Strip, strips
from .measured import Measured, Score
from .merge import Section
from .merged import Incident
from .tables import (
    ALL_SAMPLES,
    CATEGORIES,
    REFERENCE,
    Table,
    make_table,
    section_tables,
)
from .verdict import LEGEND, Family, families, verdict_tables

__all__ = ["Chapter", "Study", "chapter", "render"]


@dataclass(frozen=True)
class Study:
    """Variants of a method.

    Args:
        title (str): What it is called.
        option (str): What is varied.
        table (Table): On the samples that all variants have; the reference is the variant with the
            fewest options.
        figures (sequence of Figure): One for each score.
    """

    title: str
    option: str
    table: Table
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Chapter:
    """All that the page says of a section; the names are those of the parts of the page."""

    title: str
    section: Section
    n_samples: int
    n_unloaded: int
    verdict: Sequence[Family]
    tables: Sequence[Table]
    curves: Mapping[str, Sequence[Figure]]
    cost: Sequence[Figure]
    cost_samples: str
    studies: Sequence[Study]
    sanity: Mapping[str, Sequence[Figure]]
    gallery: Sequence[Strip]
    pointing: str | None
    pictures: Sequence[Figure]
    failures: Sequence[Incident]
    warnings: Sequence[Incident]

    @property
    def all_tables(self) -> list[Table]:
        """The tables of the chapter, those of the studies too."""
        return [*self.tables, *(study.table for study in self.studies)]

    @property
    def figures(self) -> list[Figure]:
        """The drawings of the chapter."""
        groups = [*self.curves.values(), self.cost, *self.sanity.values()]
        groups += [study.figures for study in self.studies]
        return [figure for group in groups for figure in group]


def chapter(section: Section, reference: str | None = None) -> Chapter:
    """Computes and draws all that there is to say of a section.

    Args:
        section (Section): The section.
        reference (str, optional): The method that others are compared with, if it is one of the
            section's. Default: None, Group-CAM or the first.
    """
    measured = Measured(section)
    methods = section.compared
    if reference is None or reference not in methods:
        reference = REFERENCE if REFERENCE in methods else methods[0]
    measures = section.configuration["measures"]
    rows = section.rows
    tables = section_tables(measured, methods, reference)
    fair = _fair(tables)
    cost = fair.get("cost")
    scored = [fair[name] for name in ("faithfulness", "localisation") if name in fair]
    has_curve = {name: rows.curve_names().get(name, set()) for name in measures}
    pointing = next((name for name in measures if name.startswith("PointingGame")), None)
    return Chapter(
        section.title,
        section,
        measured.n_samples,
        measured.n_unloaded,
        families(measured, methods),
        tables,
        {
            name: curve_figures(rows, name, methods, reference)
            for name, names in has_curve.items()
            if "deletion_curve" in names
        },
        [figure for table in scored if cost for figure in cost_figures(table, cost)],
        "; ".join(f"{table.category}: {table.samples}" for table in [*scored, cost] if table),
        _studies(section, measured),
        {
            name: sanity_figures(
                rows, name, methods, section.configuration.get("randomised_layers", [])
            )
            for name, names in has_curve.items()
            if "ssim" in names
        },
        strips(section.gallery, methods, rows, pointing),
        pointing,
        [Figure(_png(path), path.stem) for path in section.pictures],
        rows.failures(),
        rows.warnings(),
    )


def render(chapters: Sequence[Chapter]) -> str:
    """The page.

    Args:
        chapters (sequence of Chapter): One for each section.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        name: getattr(files, name)
        for name in ("number", "spread", "marks", "column_decimals", "mean_decimals")
    }
    environment.globals["LEGEND"] = LEGEND
    environment.filters["breakable"] = _breakable
    return environment.get_template("page.html").render(
        chapters=chapters,
        verdicts=verdict_tables({one.title: one.verdict for one in chapters if one.verdict}),
        page_title=_page_title(chapters),
    )


def _page_title(chapters: Sequence[Chapter]) -> str:
    """The title of the page: the kind of its runs."""
    kinds = {
        "Sanity check" if one.sanity else "Ablation" if one.studies else "Saliency methods compared"
        for one in chapters
    }
    return kinds.pop() if len(kinds) == 1 else "Saliency methods compared"


def _breakable(text: str) -> markupsafe.Markup:
    """A label that may be broken behind its separators."""
    broken = re.sub(r"(?<=[:,._])(?=\w)", "\0", text)
    return markupsafe.Markup("<wbr>").join(broken.split("\0"))


def _fair(tables: Sequence[Table]) -> dict[str, Table]:
    """For each category the table over all samples, or over those that all methods have."""
    return {table.category: table for table in tables if table.subset == ALL_SAMPLES}


def _studies(section: Section, measured: Measured) -> list[Study]:
    methods = section.configuration["methods"]
    found = []
    for title, labels in section.configuration["studies"].items():
        scores = [
            score
            for score in sorted(measured.scores, key=_place)
            if sum(measured.having(label, score).any() for label in labels) > 1
        ]
        having = [label for label in labels if any(measured.having(label, s).any() for s in scores)]
        if not having:
            continue
        known = [measured.having(label, score) for label in having for score in scores]
        every = np.ones(measured.n_samples, dtype=bool)
        shared = np.logical_and.reduce([every, *(one for one in known if one.any())])
        plainest = min(having, key=lambda label: len(methods[label]["options"]))
        table = make_table(
            measured,
            having,
            scores,
            f"study {title}",
            shared if shared.any() else every,
            reference=plainest,
        )
        option, _ = varied(table.methods, methods)
        found.append(Study(title, option, table, study_figures(table, methods)))
    return found


def _place(score: Score) -> int:
    known = score.category in CATEGORIES
    return CATEGORIES.index(score.category) if known else len(CATEGORIES)


def _png(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
