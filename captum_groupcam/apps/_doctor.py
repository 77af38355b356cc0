"""What a report of a fault needs to say: versions, devices, and what works on them."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

import torch
from packaging.requirements import Requirement

from captum_groupcam.attr.group_cam import GroupCAM

__all__ = ["diagnosis"]

_PACKAGE = "captum_groupcam"
#: Extras that a user installs; the others are for those who work on the package.
_EXTRAS = ("cli", "hf", "cluster", "explorer", "insights", "bench")
#: What is true of an extra whatever is installed.
_NOTES = {"insights": " (goes with captum 0.8 only: use an environment of its own)"}


def diagnosis() -> list[str]:
    """Versions, devices, extras, and whether a small network is explained on each device.

    Returns:
        list of str: The lines, as a report of a fault takes them.
    """
    return [
        f"{_PACKAGE} {version(_PACKAGE)}",
        f"Python {platform.python_version()} on {platform.platform()}",
        *(_describe(requirement) for requirement in _requirements("")),
        "",
        *(
            f"extra {extra}: {_missing(extra) or 'installed'}{_NOTES.get(extra, '')}"
            for extra in _EXTRAS
        ),
        "",
        *(f"{device}: {_explains(device)}" for device in _devices()),
    ]


def _requirements(extra: str) -> Iterator[Requirement]:
    """What an extra asks for, the extras that it is made of included; "" is the package."""
    for text in requires(_PACKAGE) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        wanted = marker is None or marker.evaluate({"extra": extra})
        if not wanted or (extra and (marker is None or marker.evaluate({"extra": ""}))):
            continue
        if requirement.name.replace("-", "_") == _PACKAGE:
            for part in requirement.extras:
                yield from _requirements(part)
        else:
            yield requirement


def _describe(requirement: Requirement) -> str:
    """A package with its version, and whether that is one of those that are admitted."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} {found}"
    return f"{requirement.name} {found}, expected {requirement.specifier}"


def _missing(extra: str) -> str:
    """What keeps an extra from working; empty if nothing does."""
    unmet = (_describe(requirement) for requirement in _requirements(extra))
    return "; ".join(text for text in unmet if " is missing" in text or "expected" in text)


def _devices() -> list[str]:
    found = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return found + ["mps"] * torch.backends.mps.is_available()


def _explains(device: str) -> str:
    """Explains two images with a small network and compares the maps with the CPU's."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    described = name or (f"{torch.get_num_threads()} threads" if device == "cpu" else "")
    try:
        difference = (_maps(device) - _maps("cpu")).abs().amax().item()
    except Exception as error:  # whatever a driver raises belongs in the report
        return f"{described}; GroupCAM fails: {type(error).__name__}: {error}"
    works = f"GroupCAM works, maps within {difference:.0e} of the CPU's"
    if device == "cpu":
        works = "GroupCAM works"
    return f"{described}; {works}" if described else works


def _maps(device: str) -> torch.Tensor:
    """Maps of two images by a small network, the same on every device."""
    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(8, 5),
        ).eval()
        images = torch.rand(2, 3, 32, 32)
        attribution = GroupCAM(network.to(device), network[1])
        maps = attribution.attribute(images.to(device), target=3, relu_attributions=False)
    if not maps.isfinite().all() or not maps.any():
        raise ArithmeticError("the maps are not finite, or zero")
    return maps.cpu()
