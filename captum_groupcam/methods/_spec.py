"""A method with its options, written as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from captum_groupcam.methods._method import Method
from captum_groupcam.methods._registry import find_method, load_method
from captum_groupcam.naming import is_reference, split_reference
from captum_groupcam.options import format_value, parse_value, split_text


@dataclass(frozen=True)
class MethodSpec:
    """A method with its options and its layer, written as ``name:option=value,option=value``.

    Args:
        name (str): A name of :data:`METHODS`.
        options (mapping, optional): Its options. Default: none.
        layer (str, optional): Dotted name of the layer that it explains. Default: None, the
            network's own.

    Raises:
        TypeError: If the method has no such option, or a value is of another type.
        ValueError: If there is no such method, or a value is none of the choices.

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
        self.method.check(self.options)

    @property
    def method(self) -> Method:
        """The entry of the registry."""
        return find_method(self.name)

    @classmethod
    def parse(cls, text: str, *, importing: bool = False) -> MethodSpec:
        """Reads what ``str`` writes.

        Args:
            text (str): ``name`` or ``name:option=value,...``. Values are numbers, None, True,
                False, words, quoted strings, or tuples or lists of these; the option ``layer`` is
                a layer's dotted name, whatever that looks like, and ``layers`` several in
                brackets, whose maps are merged: ``layer_cam:layers=(layer3,layer4),merge=product``.
            importing (bool, optional): Whether a name that is a reference
                (``package.module:object``) is imported, by :func:`load_method`: only for what a
                user has typed. Default: False.

        Returns:
            MethodSpec: The method with its options.

        Raises:
            TypeError: If the method has no such option, or a value is of another type.
            ValueError: If it is not of this form, or there is no such method.
        """
        name, listed = split_reference(text)
        if importing and is_reference(name):
            name = load_method(name).name
        options: dict[str, Any] = {}
        layer: str | None = None
        for item in split_text(listed, ","):
            option, equals, value = (part.strip() for part in item.partition("="))
            if not equals or not option.isidentifier():
                raise ValueError(
                    f"Expected a method as name or name:option=value,option=value, got {text!r}."
                )
            if option == "layers":
                inner = value[1:-1] if value[:1] + value[-1:] in ("()", "[]") else value
                names = (part.strip() for part in split_text(inner, ","))
                options[option] = tuple(_layer_name(part) for part in names if part)
            elif option == "layer":
                layer = _layer_name(value)
            else:
                options[option] = parse_value(value)
        return cls(name.strip(), dict(sorted(options.items())), layer)

    def __str__(self) -> str:
        options = {option: format_value(value) for option, value in self.options.items()}
        if self.layer is not None:
            # Of this one it is known that it is a name, so a number needs no quotes.
            number = self.layer.replace(".", "").isdecimal()
            options["layer"] = self.layer if number else format_value(self.layer)
        listed = ",".join(f"{option}={value}" for option, value in sorted(options.items()))
        return f"{self.name}:{listed}" if listed else self.name


def _layer_name(text: str) -> str:
    """A layer's dotted name as it stands, whatever it looks like, or in quotes."""
    quoted = parse_value(text)
    return quoted if isinstance(quoted, str) else text
