"""The configuration of a run: what has to be the same for its rows to belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigurationError

__all__ = ["GROWING", "TOLD", "ConfigurationError", "fingerprint", "mismatch", "read_configuration"]
__all__ += ["RANDOM", "reject_differences", "versions"]

#: What ``--weights`` says where weights are drawn.
RANDOM = "random"

#: What may differ from one start of a run to the next, and grow.
GROWING = ("methods", "measures", "studies")
#: What is told in the report, and does not make another configuration.
TOLD = ("environment", "left_out_names")
#: What only says in words what an entry is.
_WORDS = ("description", "source")
#: What a configuration has at least.
_SHAPE: Mapping[str, Any] = {
    **dict.fromkeys(("model", "layer", "dataset", "target"), str),
    **dict.fromkeys(("n_samples", "seed"), int),
    "left_out": {"*": int},
    "studies": {"*": [str]},
    "methods": {"*": {"name": str, "options": dict}},
    "measures": {
        "*": {
            "scores": {"*": bool},
            "description": str,
            "source": str,
            "category": str,
            "parameters": dict,
        }
    },
    "environment": {"device": str},
}


def read_configuration(path: Path) -> dict[str, Any]:
    """Reads a configuration.

    Args:
        path (Path): A JSON file.

    Raises:
        ConfigurationError: If there is none, or it is not one.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        problem = mismatch(found, _SHAPE)
        if not problem:  # runs of old do not name what was left out
            problem = mismatch(found.get("left_out_names", {}), {"*": [str]}, "'left_out_names'")
    except (OSError, ValueError, RecursionError) as error:
        problem = str(error)
    if problem:
        raise ConfigurationError(f"{path} is not the configuration of a run: {problem}.")
    return found


def reject_differences(path: Path, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Compares what has to be the same.

    Args:
        path (Path): The run's folder, for the message.
        before (mapping): Its configuration.
        wanted (mapping): What it should be.

    Raises:
        ConfigurationError: If they differ. The message says in what.
    """
    differing = [
        f"{name}: {before.get(name)!r}, now {wanted.get(name)!r}"
        for name in sorted({*before, *wanted} - {*TOLD, *GROWING})
        if before.get(name) != wanted.get(name)
    ]
    differing += [
        f"{name}: {before[group][name]!r}, now {wanted[group][name]!r}"
        for group in GROWING
        for name in before[group]
        if name in wanted[group]
        and _without_words(before[group][name]) != _without_words(wanted[group][name])
    ]
    if differing:
        raise ConfigurationError(
            f"{path} holds the rows of another configuration ({'; '.join(differing)}). Give "
            "another folder, or the former options to go on."
        )


def _without_words(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    return {key: value for key, value in entry.items() if key not in _WORDS}


def fingerprint(network: nn.Module) -> str:
    """Tells networks apart by their weights: a short hash of them."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        if isinstance(tensor, Tensor):
            plain = tensor.detach().cpu().contiguous().flatten()
            # As bytes, since NumPy does not know all types.
            digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of installed packages."""
    return {package: version(package) for package in packages}


def mismatch(found: Any, shape: Any, where: str = "it") -> str:
    """Where something is not of a shape, in words.

    Args:
        found (Any): What came, as JSON.
        shape (Any): A type, a list of one, or a mapping, whose every value (``*``) or named values
            are such.
        where (str, optional): What it is called. Default: ``it``.

    Returns:
        str: Empty if it is.

    Examples::

        >>> mismatch({"sizes": [3, "4"]}, {"sizes": [int]})
        "'sizes', 1 should be of type int, and is '4'"
    """
    if isinstance(shape, type):
        if isinstance(found, shape):
            return ""
        return f"{where} should be of type {shape.__name__}, and is {_shortened(found)}"
    problem = mismatch(found, type(shape), where)
    if problem:
        return problem
    if isinstance(shape, list):
        entries = ((index, value, shape[0]) for index, value in enumerate(found))
    elif "*" in shape:
        entries = ((name, value, shape["*"]) for name, value in found.items())
    else:
        missing = [name for name in shape if name not in found]
        if missing:
            return f"{where} has no {missing[0]!r}"
        entries = ((name, found[name], inner) for name, inner in shape.items())
    problems = (
        mismatch(value, inner, repr(name) if where == "it" else f"{where}, {name!r}")
        for name, value, inner in entries
    )
    return next(filter(None, problems), "")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
