"""A method together with its options, written as ``name:option=value,option=value``."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.methods import METHODS

__all__ = ["MethodSpec"]


@dataclass(frozen=True)
class MethodSpec:
    """A method of the registry and its options.

    Args:
        name (str): A name of :data:`~benchmarks.methods.METHODS`.
        options (mapping, optional): Its options. Default: none.
        layer (str, optional): Dotted name of the layer that it explains. Default: None, the
            network's own.

    Raises:
        ValueError: If there is no such method.

    Examples::

        >>> MethodSpec.parse("group_cam:n_groups=8,denoise_at=input")
        MethodSpec(name='group_cam', options={'denoise_at': 'input', 'n_groups': 8}, layer=None)
        >>> str(MethodSpec.parse("group_cam:n_groups=8,denoise_at=input"))
        'group_cam:denoise_at=input,n_groups=8'
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    layer: str | None = None

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise ValueError(f"Unknown method {self.name!r}; known are {', '.join(METHODS)}.")

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        """Reads what ``str`` writes.

        Args:
            text (str): ``name`` or ``name:option=value,...``. Values are numbers, None, True, False
                or words; the option ``layer`` is a layer's dotted name.

        Raises:
            ValueError: If it is not of this form, or there is no such method.
        """
        name, _, listed = text.partition(":")
        options: dict[str, Any] = {}
        for item in filter(None, listed.split(",")):
            option, equals, value = item.partition("=")
            if not equals or not option.strip().isidentifier():
                raise ValueError(
                    f"Expected a method as name or name:option=value,option=value, got {text!r}."
                )
            options[option.strip()] = _value(value.strip())
        layer = options.pop("layer", None)
        return cls(name.strip(), dict(sorted(options.items())), layer)

    def __str__(self) -> str:
        options = (
            dict(self.options) if self.layer is None else {**self.options, "layer": self.layer}
        )
        listed = ",".join(f"{option}={value}" for option, value in sorted(options.items()))
        return f"{self.name}:{listed}" if listed else self.name


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
