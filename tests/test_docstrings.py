"""Docstrings of what is public: in Captum's style, complete, with an example that runs."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import captum_groupcam
from captum_groupcam import methods
from captum_groupcam.metrics import functional

#: Applications, told by ``--help`` and by the page; their modules need an extra.
APPLICATIONS = ("captum_groupcam.__main__", "captum_groupcam.apps")

HEADING = re.compile(r"^(Args|Attributes|Returns|Raises|Examples)::?$", re.MULTILINE)
#: ``name (type): text``, where the type may have brackets of its own.
ENTRY = re.compile(r"^\*{0,2}(\w+) \(((?:[^()]|\([^()]*\))+)\):", re.MULTILINE)
#: A docstring or an entry that leaves the rest to another one.
ELSEWHERE = re.compile(r"[Ss]ee :\w+:|[Aa]s in (:\w+:|Captum)|[Oo]ptions of :\w+:")
SHAPE = re.compile(r"\w'? x [\w(]|\b([GKNQT]|shapes?|spatial|size|[Ss]calars?)\b")
SOURCE = re.compile(r"arXiv \d{4}\.\d{5}|Source: |[\w.] (19|20)\d\d\b|published code of \w+")


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


def sections(documented: Any) -> dict[str, str]:
    """The text below each heading; what comes before them is ''."""
    head, *rest = HEADING.split(inspect.cleandoc(documented.__doc__ or ""))
    texts = (textwrap.dedent(text).strip() for text in rest[1::2])
    return {"": head.strip(), **dict(zip(rest[::2], texts, strict=True))}


def entries(section: str) -> dict[str, tuple[str, str]]:
    """Type and text of each name in a section."""
    parts = ENTRY.split(section)[1:]
    return dict(zip(parts[::3], zip(parts[1::3], parts[2::3], strict=True), strict=True))


def takes_tensor(annotation: Any) -> bool:
    """Whether a tensor is among what is annotated, not only in a function's signature."""
    return "Tensor" in re.sub(r"Callable\[.*\]", "", str(annotation))


def raised(function: Any) -> set[str]:
    """Names of the exceptions that a body raises itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raises = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
    calls = [node.func for node in raises if isinstance(node, ast.Call)]
    return {ast.unparse(call).rpartition(".")[2] for call in calls}


def about_entry(parameter: inspect.Parameter, kind: str, text: str) -> Iterator[str]:
    default = parameter.default
    if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        if (default is not parameter.empty) != kind.endswith("optional"):
            yield "'(type, optional)' stands where there is a default, and only there"
        if default is not parameter.empty and "Default: " not in text:
            yield "no 'Default: ...'"
        if isinstance(default, (bool, int, float, str)):
            written = f'"{default}"' if isinstance(default, str) else str(default)
            if f"Default: {written}" not in text and "Default: :data:" not in text:
                yield f"the default is {written}"
    if takes_tensor(parameter.annotation) and not (SHAPE.search(text) or ELSEWHERE.search(text)):
        yield "no shape"


def about_arguments(function: Any, doc: dict[str, str]) -> Iterator[str]:
    described = entries(doc.get("Args", ""))
    parameters = dict(inspect.signature(function).parameters)
    for bound in ("self", "cls"):
        parameters.pop(bound, None)
    yield from (f"{name} is no argument" for name in described.keys() - parameters.keys())
    for name, parameter in parameters.items():
        if name in described:
            yield from (f"{name}: {what}" for what in about_entry(parameter, *described[name]))
        else:
            yield f"{name}: no '{name} (type): ...' below 'Args:'"


def about_function(function: Any) -> Iterator[str]:
    function = inspect.unwrap(function)
    doc = sections(function)
    if not doc[""]:
        yield "no docstring"
        return
    for error in raised(function):
        if f"{error}: " not in doc.get("Raises", ""):
            yield f"no '{error}: ...' below 'Raises:'"
    if ELSEWHERE.search(doc[""]):
        return
    yield from about_arguments(function, doc)
    result = inspect.signature(function).return_annotation
    if result not in ("None", "Iterator[None]") and ": " not in doc.get("Returns", ""):
        yield "no 'type: ...' below 'Returns:'"
    elif takes_tensor(result) and not SHAPE.search(doc["Returns"]):
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
    doc = sections(cls)
    if is_record(cls):
        described = entries(doc.get("Attributes", doc.get("Args", "")))
        for name, annotation in fields(cls).items():
            if name not in described:
                yield f"{name}: no '{name} (type): ...' below 'Attributes:'"
            elif takes_tensor(annotation) and not SHAPE.search(described[name][1]):
                yield f"{name}: no shape"
    elif "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False):
        yield from about_arguments(cls, doc)
        for error in raised(vars(cls)["__init__"]):
            if f"{error}: " not in doc.get("Raises", ""):
                yield f"no '{error}: ...' below 'Raises:'"
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
    """The paper, or the method whose options are taken; the controls are nobody's."""
    classes = [getattr(captum_groupcam, name) for name in captum_groupcam.__all__]
    measures = [getattr(functional, name) for name in functional.__all__]
    compared = [getattr(methods, name) for name in methods.METHODS]
    unnamed = [
        value.__qualname__
        for value in [*classes, *filter(inspect.isfunction, measures), *compared]
        if not SOURCE.search(value.__doc__) and "ptions of :meth:" not in value.__doc__
    ]
    assert unnamed == ["random", "centre", "edges"]


def test_what_is_missing_is_noticed() -> None:
    def bad(inputs, size: int = 3, *, flag: bool = True):
        """Does something.

        Args:
            inputs (Tensor): What goes in.
            size (int, optional): Pixels. Default: 4.
            other (int): Not there.
        """
        raise ValueError("never")

    bad.__annotations__.update(inputs="Tensor", **{"return": "Tensor"})
    assert sorted(about_function(bad)) == [
        "flag: no 'flag (type): ...' below 'Args:'",
        "inputs: no shape",
        "no 'ValueError: ...' below 'Raises:'",
        "no 'type: ...' below 'Returns:'",
        "other is no argument",
        "size: the default is 3",
    ]
    assert not has_example(bad)
