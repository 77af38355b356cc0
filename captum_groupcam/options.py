"""The options of a method: found in its signature, checked, written as text and read back."""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import numbers
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from captum_groupcam.masking.groups import GROUPINGS

__all__ = [
    "Option",
    "Value",
    "check_options",
    "format_value",
    "options_of",
    "parse_value",
    "split_text",
]

#: What an option can be set to by a form.
Value: TypeAlias = bool | int | float | str | None

#: Names to choose from where the signature takes any string.
_CHOICES = {"grouping": tuple(GROUPINGS)}
#: The lowest and the highest number that a page takes. What is asked of it must end while others
#: wait, and fit into its memory: RISE's largest masks take 80 MB, and the nodes of integrated
#: gradients are the eigenvalues of a matrix with a row a step.
_LIMITS: dict[str, tuple[float, float]] = {
    "denoise_percentile": (0, 99),
    "edge_radius": (0, 0.5),
    "gradient_power": (0, 8),
    "gradient_sigma": (0.001, 0.5),
    "grid_size": (1, 32),
    "n_groups": (1, 4096),
    "n_masks": (1, 20_000),
    "n_samples": (1, 1000),
    "n_segments": (1, 1000),
    "n_steps": (1, 1000),
    "noise_level": (0, 8),
    "probability": (0, 1),
    "seed": (0, 2**32 - 1),
    "stride": (1, 4096),
    "window": (1, 4096),
}
#: Of numbers that the table does not know, which methods of one's own have.
_LIMITS_OF_OTHERS = (-10_000, 10_000)
#: A page does not offer them: they change what is returned or how fast, or are a method's own.
_HIDDEN = {
    "gradient_free",
    "internal_batch_size",
    "relu_attributions",
    "return_effects",
    "return_group_masks",
    "return_group_scores",
    "show_progress",
}
#: They belong to the layer rather than to the method.
_OF_LAYER = {"layer_call", "reshape_transform"}
#: An option wherever it stands: Captum has it before the keywords.
_POSITIONAL = "relu_attributions"


@dataclass(frozen=True)
class Option:
    """A keyword of a method.

    Attributes:
        name (str): The keyword.
        default (Any): Its default.
        annotation (Any): Its type. Default: Any.
        kind (type, optional): bool, int, float or str, if a form can set it. Default: None, not by
            a form.
        choices (tuple of str): The strings that it can be. Default: (), for other kinds.
        optional (bool): Whether it can be None. Default: False.
    """

    name: str
    default: Any
    annotation: Any = Any
    kind: type[bool] | type[int] | type[float] | type[str] | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False

    @property
    def is_offered(self) -> bool:
        """Whether a page offers it: a form can set it, and it changes the map."""
        return self.kind is not None and self.name not in _HIDDEN

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest number that a page takes; Python takes what the method does.

        Examples::

            >>> Option("n_masks", 4000, kind=int).limits
            (1, 20000)
        """
        return _LIMITS.get(self.name, _LIMITS_OF_OTHERS)

    def check(self, value: Any) -> None:
        """Checks that the option can have a value, as far as its type says.

        Args:
            value (Any): The value.

        Raises:
            TypeError: If it is of another type.
            ValueError: If it is none of the choices.

        Examples::

            >>> Option("n_groups", 32, int).check("8")
            Traceback (most recent call last):
            TypeError: n_groups must be int, got '8'.
        """
        if self.choices and isinstance(value, str) and value not in self.choices:
            raise ValueError(
                f"{self.name} must be one of {', '.join(self.choices)}; got {value!r}."
            )
        if not _fits(value, self.annotation):
            raise TypeError(f"{self.name} must be {_in_words(self.annotation)}, got {value!r}.")

    def parse(self, value: Value) -> Value:
        """Turns what a form gives into what the method takes; an empty field is None.

        Args:
            value (bool, int, float, str or None): What the form gives.

        Returns:
            bool, int, float, str or None: The value.

        Raises:
            TypeError: If it is of another type.
            ValueError: If it is empty and has to be set, is not a number where one is needed, is
                outside the :attr:`limits`, or is none of the choices.

        Examples::

            >>> Option("n_groups", 32, kind=int).parse(8.0)
            8
        """
        if value is None or value == "":
            if self.optional:
                return None
            raise ValueError(f"{self.name} needs a value; its default is {self.default}.")
        if self.kind in (None, bool, str):
            self.check(value)
            return value
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{self.name} is a number, got {value!r}.") from None
        if math.isnan(number) or (self.kind is int and not number.is_integer()):
            whole = " whole" if self.kind is int else ""
            raise ValueError(f"{self.name} is a{whole} number, got {value}.")
        lowest, highest = self.limits
        if number < lowest:
            raise ValueError(f"{self.name} must be at least {lowest}, got {value}.")
        if number > highest:
            raise ValueError(f"{self.name} must be at most {highest} on a page, got {value}.")
        return int(number) if self.kind is int else number


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """Finds the options of a method: the keyword-only parameters, and ``relu_attributions``.

    Args:
        function (Callable): The function, or ``attribute`` of a class.

    Returns:
        dict of str to Option: The options by name, in order. What says how to read the layer
        (``reshape_transform``) is none of them.

    Examples::

        >>> def blur(inputs, *, sigma: float = 2.0, mode: Literal["same", "valid"] = "same"):
        ...     return inputs
        >>> [option.kind for option in options_of(blur).values()]
        [<class 'float'>, <class 'str'>]
    """
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    return {
        parameter.name: _option(parameter, hints.get(parameter.name, Any))
        for parameter in parameters
        if parameter.name == _POSITIONAL
        or (parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in _OF_LAYER)
    }


def check_options(known: Mapping[str, Option], given: Mapping[str, Any], what: str) -> None:
    """Checks names and types of options.

    Args:
        known (mapping of str to Option): The options that there are.
        given (mapping of str to Any): Names and values that were chosen.
        what (str): Whose options they are, for the message.

    Raises:
        TypeError: If there is no such option, or a value is of another type.
        ValueError: If a value is none of the choices.

    Examples::

        >>> check_options({"n_groups": Option("n_groups", 32, int)}, {"n_grups": 8}, "group_cam")
        Traceback (most recent call last):
        TypeError: group_cam has no option 'n_grups'; did you mean n_groups?
    """
    for name, value in given.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known) or 'none'}."
            raise TypeError(f"{what} has no option {name!r}; {hint}")
        known[name].check(value)


def _in_words(annotation: Any) -> str:
    return "True or False" if annotation is bool else inspect.formatannotation(annotation)


def parse_value(text: str) -> Any:
    """Reads a number, None, True, False, a quoted string, a tuple or list of these, or a word.

    Args:
        text (str): The text.

    Returns:
        Any: The value; a text that is not a Python literal stands for itself.

    Examples::

        >>> parse_value("(7,7)"), parse_value("input"), parse_value("'4'")
        ((7, 7), 'input', '4')
    """
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return text


def format_value(value: Any) -> str:
    """Writes what :func:`parse_value` reads, without white space where there is none in strings.

    Args:
        value (Any): None, a bool, a finite number, a string, or a tuple or list of these.

    Returns:
        str: The text.

    Examples::

        >>> format_value((7, 7)), format_value("input"), format_value("4")
        ('(7,7)', 'input', "'4'")
    """
    if isinstance(value, str):
        plain = re.fullmatch(r"[\w.+/:-]+", value) and parse_value(value) == value
        return value if plain else repr(value)
    return "".join(_literal(value))


def split_text(text: str, separator: str) -> list[str]:
    """Splits a text, but not within brackets and quotes.

    Args:
        text (str): The text.
        separator (str): A character, or " " for any white space.

    Returns:
        list of str: The parts that are not empty, without white space at their ends.

    Examples::

        >>> split_text("grid_size=(7,7),seed=1", ",")
        ['grid_size=(7,7)', 'seed=1']
    """
    parts, quote, depth, start = [], "", 0, 0
    escaped = False
    for place, character in enumerate(text):
        if escaped:
            escaped = False
        elif quote:
            escaped = character == "\\"
            if character == quote:
                quote = ""
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif depth == 0 and (character == separator or (separator == " " and character.isspace())):
            parts.append(text[start:place])
            start = place + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def _literal(value: Any) -> Iterator[str]:
    """Python's literal of a value, without white space."""
    if isinstance(value, (tuple, list)):
        begin, end = "()" if isinstance(value, tuple) else "[]"
        inner = ",".join("".join(_literal(item)) for item in value)
        yield f"{begin}{inner}{',' if begin == '(' and len(value) == 1 else ''}{end}"
    else:
        yield repr(value)


def _option(parameter: inspect.Parameter, hint: Any) -> Option:
    name, default, members = parameter.name, parameter.default, get_args(hint)
    choices = members if get_origin(hint) is Literal else _CHOICES.get(name, ())
    if choices:
        return Option(name, default, hint, str, choices)
    kinds = members if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kind = next((kind for kind in (bool, int, float) if kind in kinds), None)
    # What can also be a tensor is seldom a number.
    if kind is None or Tensor in kinds:
        return Option(name, default, hint)
    return Option(name, default, hint, kind, optional=types.NoneType in kinds)


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of a type, as far as that can be seen from outside."""
    if annotation is Any:  # a class in new Pythons, of which nothing is an instance
        return True
    origin, members = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_fits(value, member) for member in members)
    if origin is Literal:
        return value in members
    if annotation in (None, types.NoneType):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation in (int, float):
        number = numbers.Integral if annotation is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if isinstance(origin, type) and issubclass(origin, Callable):  # type: ignore[arg-type]
        return callable(value)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        if origin is tuple and members and members[-1] is not Ellipsis:
            return len(value) == len(members) and all(map(_fits, value, members))
        return all(_fits(item, members[0]) for item in value) if members else True
    if isinstance(annotation, type) and annotation is not Any:
        return isinstance(value, annotation)
    return True
