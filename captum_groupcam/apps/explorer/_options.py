"""The options that a page offers of a method, and what the documentation says of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

import docstring_parser

from captum_groupcam.methods import find_method
from captum_groupcam.options import Option, Value

__all__ = ["changed_options", "help_of", "offered_options"]


def offered_options(method: str) -> list[Option]:
    """Finds the options of a method that can be set by a number, a check mark or a choice.

    Args:
        method (str): A name in :data:`~captum_groupcam.methods.METHODS`.

    Examples::

        >>> [option.name for option in offered_options("smooth_grad")]
        ['n_samples', 'noise_level', 'seed']
    """
    return [option for option in find_method(method).options.values() if option.is_offered]


def changed_options(method: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """Those of the values of a form that differ from their defaults, as the method takes them.

    Args:
        method (str): A name in :data:`~captum_groupcam.methods.METHODS`.
        values (mapping of str to value): Name of an option to what the form says.

    Raises:
        ValueError: If a value is missing or not of the option's kind.

    Examples::

        >>> changed_options("group_cam", {"n_groups": 8.0, "denoise_percentile": 70.0})
        {'n_groups': 8}
    """
    parsed = {
        option: option.parse(values[option.name])
        for option in offered_options(method)
        if option.name in values
    }
    return {option.name: value for option, value in parsed.items() if value != option.default}


def help_of(method: str, option: str) -> str:
    """What the method's documentation says of an option, without markup; None is an empty field.

    Args:
        method (str): A name in :data:`~captum_groupcam.methods.METHODS`.
        option (str): The option.

    Examples::

        >>> help_of("group_cam", "relu_scores")
        'Whether groups that lower the score are left out of the sum.'
    """
    found = find_method(method)
    function = found.explain if found.attribution is None else found.attribution.attribute
    documentation = docstring_parser.parse(inspect.getdoc(function) or "")
    described = {param.arg_name: param.description or "" for param in documentation.params}
    text = " ".join(described.get(option, "").split())
    text = re.sub(r" Default: (?!None,).*", "", text).replace("Default: None,", "Empty:")
    text = re.sub(r":math:`\\?(.*?)`", r"\1", text)
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text).replace("None", "empty")
