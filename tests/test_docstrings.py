"""Docstrings of what is public: in Captum's style, complete, with an example that runs.

Ruff's rules of pydoclint (DOC) and D417 compare arguments, returns and exceptions with the code.
What is tested here they do not know: defaults, shapes, sources, examples, and docstrings that leave
out a whole section.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import docstring_parser
import pytest
from docstring_parser import Docstring, DocstringParam, DocstringStyle

import captum_groupcam
from captum_groupcam.methods import METHODS
from captum_groupcam.metrics import functional

#: Applications, told by ``--help`` and by the page; their modules need an extra.
APPLICATIONS = ("captum_groupcam.__main__", "captum_groupcam.apps")
#: What functions of the registry take; :class:`captum_groupcam.methods.Method` describes it once.
OF_METHODS = {"model", "layer", "inputs", "target"}
FUNCTIONS_OF_METHODS = {
    method.explain
    for method in METHODS.values()
    if method.kind == "method" and not method.attribution
}

#: A docstring or an entry that leaves the rest to another one.
ELSEWHERE = re.compile(r"[Ss]ee :\w+:|[Aa]s in (:\w+:|Captum)|[Oo]ptions of :\w+:")
SHAPE = re.compile(r"\w'? x [\w(]|\b([GKNQT]|shapes?|spatial|size|[Ss]calars?)\b")
SOURCE = re.compile(r"arXiv \d{4}\.\d{5}|Sources?: |[\w.] (19|20)\d\d\b|published code of \w+")


def exported() -> dict[str, Any]:
    """Classes and functions that the public modules export, by their names."""
    found = {}
    for module in pkgutil.walk_packages(captum_groupcam.__path__, "captum_groupcam."):
        if "._" in module.name or module.name.startswith(APPLICATIONS):
            continue
        public = importlib.import_module(module.name)
        for value in (getattr(public, name) for name in getattr(public, "__all__", ())):
            if inspect.isclass(value) or inspect.isfunction(value):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def parsed(documented: Any) -> Docstring:
    text = inspect.cleandoc(documented.__doc__ or "").replace("Examples::", "Examples:")
    return docstring_parser.parse(text, DocstringStyle.GOOGLE)


def takes_tensor(annotation: Any) -> bool:
    """Whether a tensor is among what is annotated, not only in a function's signature."""
    return "Tensor" in re.sub(r"Callable\[.*\]", "", str(annotation))


def about_entry(parameter: inspect.Parameter, entry: DocstringParam) -> Iterator[str]:
    default, text = parameter.default, entry.description or ""
    if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        if (default is not parameter.empty) != bool(entry.is_optional):
            yield "'(type, optional)' stands where there is a default, and only there"
        if default is not parameter.empty and "Default: " not in text:
            yield "no 'Default: ...'"
        if isinstance(default, (bool, int, float, str)):
            written = {f'"{default}"'} if isinstance(default, str) else {f"{default}"}
            written |= {f"{default:,}"} if type(default) is int else set()
            quotient = re.search(r"Default: (\d+) / (\d+)", text)
            same = quotient and int(quotient[1]) / int(quotient[2]) == default
            if not same and not any(f"Default: {one}" in text for one in (*written, ":data:")):
                yield f"the default is {default!r}"
    if takes_tensor(parameter.annotation) and not (SHAPE.search(text) or ELSEWHERE.search(text)):
        yield "no shape"


def about_arguments(function: Any, doc: Docstring, but: set[str] = OF_METHODS) -> Iterator[str]:
    entries = {entry.arg_name.lstrip("*"): entry for entry in doc.params}
    but = but if function in FUNCTIONS_OF_METHODS else set()
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in {"self", "cls", *but}:
            if name not in entries or not entries[name].type_name:
                yield f"{name}: no '{name} (type): ...' below 'Args:'"
            else:
                yield from (f"{name}: {what}" for what in about_entry(parameter, entries[name]))


def about_function(function: Any) -> Iterator[str]:
    function = inspect.unwrap(function)
    doc = parsed(function)
    if not doc.short_description:
        yield "no docstring"
    elif not ELSEWHERE.search(doc.description or ""):
        yield from about_arguments(function, doc)
        result = inspect.signature(function).return_annotation
        if result in ("None", "Iterator[None]") or function in FUNCTIONS_OF_METHODS:
            return
        returns = doc.returns and f"{doc.returns.type_name or ''} {doc.returns.description}"
        # The parser knows types of one word; others stay in the description.
        if not returns or not (doc.returns.type_name or ": " in returns):
            yield "no 'type: ...' below 'Returns:'"
        elif takes_tensor(result) and not SHAPE.search(returns):
            yield "Returns: no shape"


def fields(cls: type) -> dict[str, Any]:
    """The fields of a record, with their annotations."""
    names = getattr(cls, "_fields", None) or [f.name for f in dataclasses.fields(cls)]
    return {name: inspect.get_annotations(cls)[name] for name in names}


def is_record(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) or hasattr(cls, "_fields")


def public_methods(cls: type) -> dict[str, Any]:
    """Its own methods, but none that says how it does what a base class here has described."""
    described = [base for base in cls.__mro__[1:] if base.__module__.startswith("captum_groupcam")]
    functions = {name: getattr(value, "__func__", value) for name, value in vars(cls).items()}
    return {
        name: value
        for name, value in functions.items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and not any(name in vars(base) for base in described)
        and value.__qualname__.startswith(cls.__name__)  # not a function that a field holds
    }


def about_class(cls: type) -> Iterator[str]:
    doc = parsed(cls)
    if is_record(cls):
        described = {entry.arg_name: entry.description or "" for entry in doc.params}
        for name, annotation in fields(cls).items():
            if name not in described:
                yield f"{name}: no '{name} (type): ...' below 'Attributes:'"
            elif takes_tensor(annotation) and not SHAPE.search(described[name]):
                yield f"{name}: no shape"
    elif "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False):
        yield from about_arguments(cls, doc)
    for name, method in public_methods(cls).items():
        yield from (f"{name}: {what}" for what in about_function(method))


def has_example(documented: Any) -> bool:
    """Whether there is one; for a class, also in one of its methods."""
    parts = [documented]
    if inspect.isclass(documented):
        if is_record(documented) or issubclass(documented, Exception):
            return True  # shown by what returns or raises it
        if getattr(documented, "_is_protocol", False):
            return True  # nothing that could run
        parts += public_methods(documented).values()
    elif documented in FUNCTIONS_OF_METHODS:
        return True  # those of METHODS are run for all methods
    return any(">>> " in (part.__doc__ or "") for part in parts)


@pytest.mark.parametrize("name", exported())
def test_docstring(name: str) -> None:
    documented = exported()[name]
    about = about_class if inspect.isclass(documented) else about_function
    problems = list(about(documented))
    if not has_example(documented):
        problems.append("no example: '>>> ...' below 'Examples::'")
    assert problems == []


def test_algorithms_name_their_source() -> None:
    """The paper, or the method whose options are taken."""
    classes = [getattr(captum_groupcam, name) for name in captum_groupcam.__all__]
    measures = [getattr(functional, name) for name in functional.__all__]
    unnamed = [
        value.__qualname__
        for value in [*classes, *filter(inspect.isfunction, measures), *FUNCTIONS_OF_METHODS]
        if not SOURCE.search(value.__doc__)
    ]
    assert unnamed == ["boxes_to_masks", "resize_masks"]  # no idea of anybody


def test_what_is_missing_is_noticed() -> None:
    def bad(inputs, size: int = 3, *, flag: bool = True, seed: int = 0):
        """Does something.

        Args:
            inputs (Tensor): What goes in.
            size (int, optional): Pixels. Default: 4.
            seed (int): Seed. Default: 0.

        Examples::

            >>> "N x C"
            'N x C'
        """

    bad.__annotations__.update(inputs="Tensor", **{"return": "Tensor"})
    assert sorted(about_function(bad)) == [
        "flag: no 'flag (type): ...' below 'Args:'",
        "inputs: no shape",
        "no 'type: ...' below 'Returns:'",
        "seed: '(type, optional)' stands where there is a default, and only there",
        "size: the default is 3",
    ]
    assert has_example(bad)
    bad.__doc__ = "Does something."
    assert not has_example(bad)
