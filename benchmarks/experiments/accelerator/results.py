"""Runs the checks of an accelerator and keeps what they find: JSON, and a table to read."""

from __future__ import annotations

import json
import platform
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...run.configuration import versions
from .checks import CHECKS
from .setting import FULL, SMALL, Check, Finding, Setting
from .speeds import SPEEDS

__all__ = ["ALL", "markdown_of", "run_checks"]

#: Every check by name.
ALL: dict[str, Check] = {**CHECKS, **SPEEDS}

_PACKAGES = ("captum_groupcam", "captum", "torch", "torchvision", "numpy")
_VERDICTS = {True: "passed", False: "**failed**", None: ""}


def run_checks(
    names: list[str] | None, device: torch.device, out: Path, *, small: bool = False
) -> bool:
    """Runs checks, writes what they find after each, and prints it.

    Args:
        names (list of str or None): Keys of :data:`ALL`. None for all.
        device (torch.device): The device.
        out (Path): The JSON file; results of other checks on the same device in it are kept. The
            table is written beside it, with the suffix ``.md``.
        small (bool, optional): Whether a small network is examined. Default: False.

    Returns:
        bool: Whether none has failed.

    Raises:
        ValueError: If a name is unknown.
    """
    unknown = sorted({*(names or ())} - {*ALL})
    if unknown:
        raise ValueError(f"Unknown: {', '.join(unknown)}; known are {', '.join(ALL)}.")
    sizes = SMALL if small else FULL
    setting = Setting(device, sizes)
    about = {
        "device": _name_of(device),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "versions": versions(_PACKAGES),
        "networks": list(sizes.networks),
    }
    results: dict[str, Any] = {**about, "checks": _kept(out, about)}
    console = Console(highlight=False)
    passed = True
    for name in names or ALL:
        start = time.perf_counter()
        try:
            finding = ALL[name].run(setting)
        except Exception as error:  # the other checks are still to come
            traceback.print_exc()
            finding = Finding(f"{type(error).__name__}: {error}", passed=False)
        seconds = round(time.perf_counter() - start, 2)
        results["checks"][name] = {**asdict(finding), "seconds": seconds}
        _write(out, results)
        verdict = _VERDICTS[finding.passed].strip("*") or "measured"
        console.print(f"{name} ({seconds:.0f} s): {verdict}. {finding.said}", markup=False)
        passed &= finding.passed is not False
    return passed


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _kept(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Results that are there already, if they are of the same device and versions."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    checks: dict[str, Any] = before.pop("checks", {})
    return checks if before == about else {}


def _write(path: Path, results: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(markdown_of(results), encoding="utf-8")


def markdown_of(results: Mapping[str, Any]) -> str:
    """The tables of results, as the documentation shows them.

    Args:
        results (mapping): What :func:`run_checks` keeps.

    Returns:
        str: Markdown: each check with its goal, and the speeds at each batch size.
    """
    found = results["checks"]
    software = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines = [f"{results['device']}; {software}.", ""]
    lines += ["| check | goal | found | |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {check.title} | {check.goal} | {found[name]['said']} | "
        f"{_VERDICTS[found[name]['passed']]} |"
        for name, check in ALL.items()
        if name in found
    ]
    by_size = found.get("batch_sizes", {}).get("numbers", {})
    if by_size:
        lines += ["", *_by_batch_size(by_size)]
    return "\n".join(lines) + "\n"


def _by_batch_size(numbers: Mapping[str, Mapping[str, Mapping[Any, float]]]) -> list[str]:
    columns = {
        f"{network}, {what.replace('_', ' ')}": {str(size): rate for size, rate in rates.items()}
        for network, each in numbers.items()
        for what, rates in each.items()
    }
    sizes = list(next(iter(columns.values())))
    return [
        f"| batch size | {' | '.join(columns)} |",
        f"| --- |{' --- |' * len(columns)}",
        *(
            f"| {size} | {' | '.join(f'{rates[size]:.0f}' for rates in columns.values())} |"
            for size in sizes
        ),
    ]
