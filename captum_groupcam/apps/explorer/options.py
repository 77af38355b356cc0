"""The options of a method that a page can offer, found in its signature."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from captum_groupcam import methods
from captum_groupcam.attr.cam import CAM
from captum_groupcam.attr.grad_cam import GradCAMPlusPlus
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.attr.rise import RISE
from captum_groupcam.attr.score_cam import ScoreCAM
from captum_groupcam.attr.selective import SelectiveGroupCAM
from captum_groupcam.attr.xrai import XRAI
from captum_groupcam.masking.groups import GROUPINGS

__all__ = ["Option", "Value", "changed_options", "options_of"]

#: What an option can be set to.
Value: TypeAlias = bool | int | float | str | None

#: Methods whose options are those of ``attribute`` of a class.
_CLASSES: dict[str, Any] = {
    "group_cam": GroupCAM,
    "group_cam_gradient_free": GroupCAM,
    "group_cam_selective": SelectiveGroupCAM,
    "grad_cam_plus_plus": GradCAMPlusPlus,
    "cam": CAM,
    "score_cam": ScoreCAM,
    "rise": RISE,
    "xrai": XRAI,
}
#: Names to choose from where the signature takes any string.
_CHOICES = {"grouping": tuple(GROUPINGS)}
#: They do not change the map, are a method of their own, or are seldom a number.
_HIDDEN = {
    "baselines",
    "gradient_free",
    "internal_batch_size",
    "return_effects",
    "return_group_masks",
    "return_group_scores",
    "show_progress",
}


@dataclass(frozen=True)
class Option:
    """An option of a method.

    Attributes:
        name (str): Its keyword.
        kind (type): bool, int, float or str.
        default (bool, int, float, str or None): What it is unless it is set.
        choices (tuple of str): The strings that it can be. Default: (), for other kinds.
        optional (bool): Whether it can be None. Default: False.
        help (str): What the method's documentation says of it. Default: "".
    """

    name: str
    kind: type[bool] | type[int] | type[float] | type[str]
    default: Value
    choices: tuple[str, ...] = ()
    optional: bool = False
    help: str = ""

    def parse(self, value: Value) -> Value:
        """Turns what a form gives into what the method takes; an empty field is None.

        Raises:
            ValueError: If it is empty and has to be set, or is no number where one is needed.

        Examples::

            >>> Option("n_groups", int, 32).parse(8.0)
            8
        """
        if value is None or value == "":
            if self.optional:
                return None
            raise ValueError(f"{self.name} needs a value; its default is {self.default}.")
        if self.kind in (bool, str):
            return value
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"{self.name} is a number, got {value!r}.") from None
        if self.kind is int and not number.is_integer():
            raise ValueError(f"{self.name} is a whole number, got {value}.")
        return self.kind(number)


def options_of(method: str) -> list[Option]:
    """Finds the keywords of a method that can be set by a number, a check mark or a choice.

    Args:
        method (str): A name in :data:`~captum_groupcam.methods.METHODS`.

    Examples::

        >>> [option.name for option in options_of("smooth_grad")]
        ['n_samples', 'noise_level', 'seed']
    """
    owner = _CLASSES.get(method)
    function: Any = getattr(methods, method) if owner is None else owner.attribute
    hints = get_type_hints(function)
    documentation = inspect.getdoc(function) or ""
    found = (
        _option(parameter, hints[name], _help(documentation, name))
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in _HIDDEN
    )
    return [option for option in found if option is not None]


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
        for option in options_of(method)
        if option.name in values
    }
    return {option.name: value for option, value in parsed.items() if value != option.default}


def _option(parameter: inspect.Parameter, hint: Any, text: str) -> Option | None:
    name, default, members = parameter.name, parameter.default, get_args(hint)
    choices = members if get_origin(hint) is Literal else _CHOICES.get(name, ())
    if choices:
        return Option(name, str, default, choices, help=text)
    kinds = members if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for kind in (bool, int, float):
        if kind in kinds:
            return Option(name, kind, default, optional=types.NoneType in kinds, help=text)
    return None


def _help(documentation: str, name: str) -> str:
    """What a Google-style docstring says of an argument, without markup; None is an empty field."""
    found = re.search(rf"^ +{name} \([^)]*\): (.+(?:\n {{8}}.+)*)", documentation, re.MULTILINE)
    if found is None:
        return ""
    text = " ".join(found[1].split())
    text = re.sub(r" Default: (?!None,).*", "", text).replace("Default: None,", "Empty:")
    text = re.sub(r":math:`\\?(.*?)`", r"\1", text)
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text).replace("None", "empty")
