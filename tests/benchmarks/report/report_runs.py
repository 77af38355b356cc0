"""Runs made by hand: what a report is written from, without a network."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import torch
from PIL import Image

from benchmarks.report.merge import Section
from benchmarks.report.merged import MergedRows
from benchmarks.run.folder import RunFolder
from benchmarks.run.rows import COST, Row, RowWriter
from benchmarks.run.table import RowTable

LAYERS = ["fc", "features.4", "features.0"]
_MEASURES: dict[str, tuple[dict[str, bool], str, dict[str, Any]]] = {
    COST: ({"seconds": False, "queries": False}, "cost", {}),
    "DeletionInsertion": (
        {"deletion": False, "insertion": True, "over_all": True},
        "faithfulness",
        {"protocol": "paper"},
    ),
    "PointingGame": ({"pointing_game": True}, "localisation", {"tolerance": 15.0}),
    "ParameterRandomisation.cascading": (
        {"cascading.ssim": False, "cascading.spearman": False},
        "randomisation",
        {"order": "cascading"},
    ),
}
ALL_MEASURES = tuple(_MEASURES)
PLAIN_MEASURES = ALL_MEASURES[:3]


def section(rows: Iterable[Row], configuration: Mapping[str, Any]) -> Section:
    """A section of such rows, read as those of a run are."""
    table = RowTable()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results-0.jsonl"
        with RowWriter(path) as writer:
            for row in rows:
                writer.write(row)
        run = table.read([path])
    methods = list(configuration["methods"])
    merged = MergedRows(table, "t", [run], methods, list(configuration["measures"]))
    return Section("t", configuration, methods, [], merged, [], [])


def configuration(methods: Iterable[str], **changes: Any) -> dict[str, Any]:
    """The configuration of a run with all measures."""

    def parsed(label: str) -> dict[str, Any]:
        name, _, listed = label.partition(":")
        options: dict[str, Any] = {}
        for item in filter(None, listed.split(",")):
            option, _, value = item.partition("=")
            options[option] = int(value) if value.isdigit() else value
        return {"name": name, "options": options, "layer": None}

    return {
        "model": "squeezenet1_1",
        "weights": "0123",
        "layer": "features.12",
        "dataset": "photographs",
        "n_samples": 1000,
        "samples": "4567",
        "left_out": {"no class of the network": 3, "crowd annotation": 1},
        "left_out_names": {"no class of the network": ["a<b>.jpg", "b.jpg", "..."]},
        "target": "label",
        "seed": 0,
        "randomised_layers": LAYERS,
        "studies": {},
        "methods": {label: parsed(label) for label in methods},
        "measures": {
            name: {
                "scores": scores,
                "description": f"What {name} is.",
                "source": "somewhere",
                "category": category,
                "parameters": dict(parameters),
            }
            for name, (scores, category, parameters) in _MEASURES.items()
        },
        "environment": {"torch": "2.3", "device": "cpu, 2 threads"},
    } | changes


def rows_of(
    samples: Sequence[str],
    methods: Iterable[str],
    measures: Collection[str] = PLAIN_MEASURES,
    seed: int = 0,
) -> list[Row]:
    """Rows whose scores depend on sample and method alone."""
    return [row for sample in samples for m in methods for row in _rows(sample, m, measures, seed)]


def _rows(sample: str, method: str, measures: Collection[str], seed: int) -> list[Row]:
    rng = np.random.default_rng(_number(f"{sample} {method} {seed}"))
    ease = np.random.default_rng(_number(sample)).uniform(0.2, 0.6)
    skill = (_number(method) % 7) / 70
    number = _number(sample)
    about: dict[str, Any] = {
        "label": f"class {number % 4}",
        "target": number % 4,
        "cover": number % 100 / 100,
        "difficult": number % 5 == 0,
        "sample": sample,
        "method": method,
    }
    fractions = np.linspace(0, 1, 11)
    deleted = (1 - fractions) ** rng.uniform(2, 6)
    inserted = fractions ** (1 / rng.uniform(2, 6))
    insertion = float(ease + skill + rng.normal(0, 0.02))
    deletion = float(0.3 - skill + rng.normal(0, 0.02))
    similar = np.sort(rng.uniform(0, 1, (2, len(LAYERS))), 1)[:, ::-1].round(3).tolist()
    made = {
        COST: Row(
            **about,
            measure=COST,
            scores={"seconds": float(rng.uniform(1, 2)), "queries": float(_number(method) % 40)},
        ),
        "DeletionInsertion": Row(
            **about,
            measure="DeletionInsertion",
            scores={
                "deletion": deletion,
                "insertion": insertion,
                "over_all": insertion - deletion,
            },
            curves={
                "fraction": fractions.tolist(),
                "deletion_curve": deleted.tolist(),
                "insertion_curve": inserted.tolist(),
            },
        ),
        "PointingGame": Row(
            **about,
            measure="PointingGame",
            scores={"pointing_game": float(rng.random() < 0.5 + 3 * skill)},
        ),
        "ParameterRandomisation.cascading": Row(
            **about,
            measure="ParameterRandomisation.cascading",
            scores={
                "cascading.ssim": float(np.mean(similar[0])),
                "cascading.spearman": float(np.mean(similar[1])),
            },
            curves={"ssim": similar[0], "spearman": similar[1]},
        ),
    }
    return [made[name] for name in ALL_MEASURES if name in measures]


def rows_beside(page: Path) -> list[dict[str, Any]]:
    """The rows that a report has written beside its page, as another program reads them."""
    found = duckdb.execute("SELECT * FROM read_parquet($1)", [str(page / "results.parquet")])
    names = [column[0] for column in found.description]
    return [dict(zip(names, values, strict=True)) for values in found.fetchall()]


def write_run(path: Path, setup: Mapping[str, Any], rows: Iterable[Row], n_shown: int = 0) -> Path:
    """A folder as a run leaves it."""
    folder = RunFolder(path)
    folder.configure(setup)
    rows = list(rows)
    with folder.writer(0) as writer:
        for row in rows:
            writer.write(row)
    rng = np.random.default_rng(0)
    for place, sample in enumerate(list(dict.fromkeys(row.sample for row in rows))[:n_shown]):
        pixels = rng.integers(0, 255, (7, 8, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((64, 56))
        about = {"sample": sample, "title": f"thing {place}", "boxes": [[0.1, 0.2, 0.6, 0.9]]}
        folder.gallery.keep(place, image, about)
        for method in setup["methods"]:
            folder.gallery.keep_map(place, method, torch.from_numpy(rng.random((1, 56, 64))))
    folder.finish({})
    return path


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
