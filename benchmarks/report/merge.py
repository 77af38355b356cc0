"""Runs put together: folders of one configuration become one section of a report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..run.configuration import GROWING, TOLD, ConfigurationError
from ..run.folder import RunFolder
from ..run.gallery import Shown
from ..run.table import RowTable
from .merged import MergedRows

__all__ = ["Section", "merge"]

#: What runs of one network on the same data may differ in.
_FREE = (*GROWING, *TOLD)
#: Where a run says which samples were chosen, and what depends on that.
_CHOSEN = "chosen_samples"
_OF_SAMPLES = {_CHOSEN, "n_samples", "samples"}


@dataclass(frozen=True, eq=False)
class Section:
    """One network on one data set: what the runs on it gave together.

    Args:
        title (str): Network and data, and what else tells it from the other sections.
        configuration (mapping): As in :class:`~benchmarks.run.folder.RunFolder`, with the methods,
            measures and studies of all runs.
        compared (sequence of str): The methods but for variants of a study.
        environments (sequence of mapping): The environment of each run.
        rows (MergedRows): By sample, method and measure.
        gallery (sequence of Shown): The samples with pictures.
        pictures (sequence of Path): Further pictures, with names that say what they show.
        unreadable (sequence of str): Pictures that are left out since they cannot be read.
    """

    title: str
    configuration: Mapping[str, Any]
    compared: Sequence[str]
    environments: Sequence[Mapping[str, str]]
    rows: MergedRows
    gallery: Sequence[Shown]
    pictures: Sequence[Path]
    unreadable: Sequence[str] = ()


def merge(folders: Iterable[RunFolder]) -> list[Section]:
    """Puts runs of the same network, data and options together.

    Args:
        folders (iterable of RunFolder): The runs.

    Returns:
        list of Section: One for each configuration, in the order of `folders`; a run of chosen
        samples goes with the one of the whole, if it is there.

    Raises:
        ConfigurationError: If a folder has no configuration, or the same name stands for two
            methods or measures.
        RowError: If two runs contradict each other.
    """
    groups = _grouped(folders)
    titles = _titles([_identity(group[0]) for group in groups.values()])
    table = RowTable()
    return [
        _section(title, group, table) for title, group in zip(titles, groups.values(), strict=True)
    ]


def _grouped(folders: Iterable[RunFolder]) -> dict[str, list[RunFolder]]:
    """Runs of the same network, data and options; a run of chosen samples is part of the whole."""
    groups: dict[str, list[RunFolder]] = {}
    for folder in folders:
        groups.setdefault(json.dumps(_identity(folder), sort_keys=True), []).append(folder)

    def on_any_samples(group: str) -> dict[str, Any]:
        return {k: v for k, v in json.loads(group).items() if k not in _OF_SAMPLES}

    whole = [group for group in groups if _CHOSEN not in json.loads(group)]
    for part in [group for group in groups if group not in whole]:
        fitting = [one for one in whole if on_any_samples(one) == on_any_samples(part)]
        if len(fitting) == 1:  # rows have digests of pictures, which are compared
            groups[fitting[0]] += groups.pop(part)
    return groups


def _identity(folder: RunFolder) -> dict[str, Any]:
    return {name: value for name, value in folder.configuration.items() if name not in _FREE}


def _titles(identities: Sequence[Mapping[str, Any]]) -> list[str]:
    """Network and data, and where that is not enough, all else that differs."""
    short = [f"{identity.get('model')} on {identity.get('dataset')}" for identity in identities]
    titles = []
    for identity, title in zip(identities, short, strict=True):
        alike = [other for other, its in zip(identities, short, strict=True) if its == title]
        differing = [
            f"{name} {value}"
            for name, value in identity.items()
            if any(other.get(name) != value for other in alike)
        ]
        titles.append(", ".join([title, *differing]))
    return titles


def _section(title: str, folders: Sequence[RunFolder], table: RowTable) -> Section:
    configuration = dict(folders[0].configuration)
    for group in GROWING:
        configuration[group] = _union(group, folders)
    # The order of the data is not known here; that of names is the same for every split of a run.
    rows = MergedRows(
        table,
        title,
        [folder.read_into(table) for folder in folders],
        list(configuration["methods"]),
        list(configuration["measures"]),
    )
    environments = [dict(folder.configuration.get("environment", {})) for folder in folders]
    gallery, unreadable = _gallery(folders)
    pictures = []
    for folder in folders:
        readable, left_out = folder.gallery.figures()
        pictures += readable
        unreadable += left_out
    return Section(
        title,
        configuration,
        _compared(folders),
        environments,
        rows,
        gallery,
        pictures,
        unreadable,
    )


def _union(group: str, folders: Sequence[RunFolder]) -> dict[str, Any]:
    union: dict[str, Any] = {}
    for folder in folders:
        for name, value in folder.configuration.get(group, {}).items():
            if union.setdefault(name, value) != value:
                raise ConfigurationError(
                    f"{folder.path} has other {group} called {name!r} than the runs before: "
                    f"{value}, and there {union[name]}. Report them apart."
                )
    return union


def _compared(folders: Sequence[RunFolder]) -> list[str]:
    """What a run has beside its studies; all methods, if that is less than two.

    A method without options is one of its own, though it may be part of a study, too.
    """
    chosen: dict[str, None] = {}
    every: dict[str, None] = {}
    for folder in folders:
        configuration = folder.configuration
        variants = {label for study in configuration["studies"].values() for label in study}
        for label in configuration["methods"]:
            every[label] = None
            if label not in variants or ":" not in label:
                chosen[label] = None
    return list(chosen if len(chosen) > 1 else every)


def _gallery(folders: Sequence[RunFolder]) -> tuple[list[Shown], list[str]]:
    shown: dict[str, Shown] = {}
    unreadable: list[str] = []
    for folder in folders:
        found, left_out = folder.gallery.samples(folder.configuration["methods"])
        unreadable += left_out
        for one in found:
            before = shown.get(one.sample)
            # Maps of two runs go on one image, whose size they must have.
            if before and before.image.size != one.image.size:
                unreadable.append(f"{one.sample}: images of two sizes")
                continue
            maps = {**one.maps, **(before.maps if before else {})}
            shown[one.sample] = replace(one, maps=maps)
    return list(shown.values()), unreadable
