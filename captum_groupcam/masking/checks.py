"""Checks of options, made before the network is asked for the first time."""

from __future__ import annotations

import numbers
from typing import Any

__all__ = ["check_between", "check_choice", "check_count", "check_seed"]


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Checks that an option is a whole number, and large enough.

    Args:
        name (str): The option.
        value (Any): Its value.
        least (int, optional): The smallest that it can be. Default: 1.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is smaller.

    Examples::

        >>> check_count("n_groups", 0)
        Traceback (most recent call last):
        ValueError: n_groups must be at least 1, got 0.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, got {value!r}.")
    if int(value) < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")


def check_seed(seed: Any, least: int = -(2**63)) -> None:
    """Checks that a seed is a whole number that generators take.

    Args:
        seed (Any): The seed.
        least (int, optional): The smallest that it can be; NumPy takes none below 0.
            Default: -9223372036854775808, torch's smallest.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is out of range.

    Examples::

        >>> check_seed(1.5)
        Traceback (most recent call last):
        TypeError: seed must be an int, got 1.5.
    """
    check_count("seed", seed, least)
    if int(seed) >= 2**63:
        raise ValueError(f"seed must be below 2**63, got {seed}.")


def check_between(
    name: str, value: Any, low: float, high: float, *, ends: str = "[]", hint: str = ""
) -> None:
    """Checks that an option is a number in an interval.

    Args:
        name (str): The option.
        value (Any): Its value.
        low (float): The smallest value.
        high (float): The largest value.
        ends (str, optional): Which ends belong to it, as brackets. Default: "[]".
        hint (str, optional): What the message ends with. Default: "".

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is outside.

    Examples::

        >>> check_between("probability", 1.0, 0, 1, ends="()")
        Traceback (most recent call last):
        ValueError: probability must be in (0, 1), got 1.0.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}.{hint}")
    number = float(value)
    above = number >= low if ends[0] == "[" else number > low
    below = number <= high if ends[1] == "]" else number < high
    if not (above and below):
        raise ValueError(
            f"{name} must be in {ends[0]}{low:g}, {high:g}{ends[1]}, got {value}.{hint}"
        )


def check_choice(name: str, value: Any, *choices: str) -> None:
    """Checks that an option is one of several words.

    Args:
        name (str): The option.
        value (Any): Its value.
        *choices (str): What it can be.

    Raises:
        ValueError: If it is none of them.

    Examples::

        >>> check_choice("denoise_at", "output", "layer", "input")
        Traceback (most recent call last):
        ValueError: denoise_at must be 'layer' or 'input', got 'output'.
    """
    if value not in choices:
        *others, last = map(repr, choices)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, got {value!r}.")
