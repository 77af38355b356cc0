"""Networks of one's own, by the name of the function or module that makes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.nn import Module

from captum_groupcam.models._checkpoints import with_weights
from captum_groupcam.models._classifier import ImageClassifier
from captum_groupcam.naming import find_object, one_line

__all__ = ["Named", "load_named"]

#: What a builder calls the number of classes, as torchvision and timm do.
_NUMBER = "num_classes"


@dataclass(frozen=True, eq=False)
class Named:
    """What a name of the user's stands for.

    Attributes:
        network (torch.nn.Module): The network, with its weights.
        described (ImageClassifier or None): All that was said about it; None for a bare network.
        notes (list of str): How its weights were unwrapped.
    """

    network: Module
    described: ImageClassifier | None
    notes: list[str]


def load_named(
    reference: str, weights: str | None, n_classes: int | None, folder: str | Path = ""
) -> Named:
    """Imports and calls what a user has named.

    Args:
        reference (str): ``package.module:object`` or ``path/file.py:object``: a network, an
            :class:`ImageClassifier`, or a function or class that makes one. It is called without
            arguments, but for the number of classes if it takes ``num_classes`` and that is known.
        weights (str or None): A file of weights for the network; None for those that it has.
        n_classes (int or None): The number of classes, if it is known from their names.
        folder (str or Path, optional): What the path of a file is relative to. Default: "".

    Returns:
        Named: The network, and what was said about it.

    Raises:
        ValueError: If there is no such object, it fails, gives something else, needs other
            arguments, or the weights are of another network.
    """
    if weights == "random":
        raise ValueError(
            f"{reference} draws its weights or loads them, as it likes: leave out --weights random."
        )
    found = find_object(reference, folder=folder)
    if weights is None:
        return _made(reference, found, n_classes)
    made: list[Named] = []
    takes, needs = _takes_number(found), _takes_number(found, needed=True)

    def build(number: int | None) -> Module:
        if number not in (None, n_classes) and not takes:
            raise ValueError(
                f"The weights are of {number} classes, which {reference} does not make: let it "
                f"take {_NUMBER}."
            )
        # Which number it is, the weights say; what is built for another only shows where.
        number = 1000 if number is None and needs else number
        made.append(_made(reference, found, number))
        return made[-1].network

    network, _, notes = with_weights(build, weights, n_classes)
    return Named(network, made[-1].described, notes)


def _made(reference: str, found: Any, n_classes: int | None) -> Named:
    """The network, or all about it, with so many classes if it can have them."""
    if callable(found) and not isinstance(found, (Module, ImageClassifier)):
        arguments = _arguments(reference, found, n_classes)
        try:
            found = found(**arguments)
        except Exception as error:
            raise ValueError(f"{reference} failed: {one_line(error)}") from error
    if isinstance(found, ImageClassifier):
        return Named(found.network, found, [])
    if isinstance(found, Module):
        return Named(found, None, [])
    raise ValueError(
        f"{reference} gives {type(found).__name__}; expected a torch.nn.Module, or a "
        "captum_groupcam.models.ImageClassifier."
    )


def _arguments(
    reference: str, function: Callable[..., Any], n_classes: int | None
) -> dict[str, Any]:
    others = [
        name
        for name, parameter in _parameters(function).items()
        if _is_needed(parameter) and name != _NUMBER
    ]
    if others:
        raise ValueError(
            f"{reference} needs the arguments {', '.join(others)}: name a function that needs none "
            f"(but {_NUMBER}, if it likes)."
        )
    if n_classes is not None and _takes_number(function):
        return {_NUMBER: n_classes}
    if _takes_number(function, needed=True):
        raise ValueError(
            f"{reference} needs {_NUMBER}: give the names of the classes (--class-names FILE)."
        )
    return {}


def _takes_number(function: Any, *, needed: bool = False) -> bool:
    """Whether a function takes, or needs, the number of classes."""
    parameter = _parameters(function).get(_NUMBER)
    return parameter is not None and (_is_needed(parameter) or not needed)


def _is_needed(parameter: inspect.Parameter) -> bool:
    several = (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and parameter.kind not in several


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    if isinstance(function, (Module, ImageClassifier)) or not callable(function):
        return {}
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # of some built-in functions
        return {}
