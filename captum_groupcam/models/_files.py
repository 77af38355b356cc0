"""Files that say something of a network: the names of its classes, and all of it in one."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captum_groupcam.models._checkpoints import is_file
from captum_groupcam.naming import is_reference

__all__ = ["read_class_names", "read_description"]

#: What a file says of a network.
_KEYS = ("network", "weights", "layer", "class_names", "preprocess")


def read_class_names(path: str | Path) -> list[str]:
    """Reads the names of classes, in the order of the network's outputs.

    Args:
        path (str or Path): Text with a name in each line, or JSON: a list of names, an object from
            index to name (as Hugging Face's ``id2label``; or to a list whose last item is the
            name, as ``imagenet_class_index.json``), or from name to index (torchvision's
            ``class_to_idx``).

    Returns:
        list of str: The names.

    Raises:
        ValueError: If there is no such file, or it is not of this form; the message says where.
    """
    if not is_file(path):
        raise ValueError(f"There is no file of class names {path}.")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The class names in {path} cannot be read: {error}") from error
    if text.lstrip()[:1] in ("[", "{"):
        try:
            names = _names_of(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"The class names in {path}: {error}") from error
    else:
        names = [line.strip() for line in text.rstrip().splitlines()]
    for place, name in enumerate(names):
        if not name:
            raise ValueError(f"The class names in {path}: that of class {place} is empty.")
    if not names:
        raise ValueError(f"There are no class names in {path}.")
    return names


def _names_of(content: Any) -> list[str]:
    if isinstance(content, Mapping):
        if all(isinstance(value, int) for value in content.values()):
            if len(set(content.values())) < len(content):
                raise ValueError("several names have one index.")
            content = {str(index): name for name, index in content.items()}
        missing = [str(i) for i in range(len(content)) if str(i) not in content]
        if missing:
            raise ValueError(f"of {len(content)} classes, index {missing[0]} has no name.")
        content = [content[str(index)] for index in range(len(content))]
    names = [one[-1] if isinstance(one, list) and one else one for one in content]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("expected a list of names, or an object of indices and names.")
    return [name.strip() for name in names]


def read_description(path: str | Path) -> dict[str, Any]:
    """Reads a file that describes a network, as the arguments of ``load_model``.

    Args:
        path (str or Path): TOML with ``network`` (a name, as ``name`` of ``load_model``) and, if
            they are not the network's own, ``weights``, ``layer``, ``class_names`` (a path or a
            list) and ``preprocess`` (a name or a table). Paths are relative to the file.

    Returns:
        dict of str to Any: The arguments, those of paths from the current folder.

    Raises:
        ValueError: If there is no such file, or it is not of this form.
        ModuleNotFoundError: If TOML cannot be read by this Python.
    """
    path = Path(path)
    if not is_file(path):
        raise ValueError(f"There is no file {path}.")
    try:
        content = _toml().loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    unknown = [key for key in content if key not in _KEYS]
    if unknown or "network" not in content:
        what = f"has the unknown entry {unknown[0]!r}" if unknown else "does not say which network"
        raise ValueError(f"{path} {what}; expected {', '.join(_KEYS)}.")
    for key, value in content.items():
        kinds = {"class_names": (str, list), "preprocess": (str, dict)}.get(key, (str,))
        if not isinstance(value, kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{path}: {key} must be {expected}, got {value!r}.")
    beside = {
        key: _beside(path.parent, value) if isinstance(value, str) else value
        for key, value in content.items()
        if key != "layer"
    }
    preprocess = content.get("preprocess")
    if isinstance(preprocess, dict) and isinstance(preprocess.get("base"), str):
        beside["preprocess"] = {**preprocess, "base": _beside(path.parent, preprocess["base"])}
    return {**content, **beside}


def _beside(folder: Path, value: str) -> str:
    """A path as it is from here, where the value is that of a file beside the description."""
    module, _, names = value.rpartition(":")
    if is_reference(value) and module.endswith(".py"):
        return f"{os.path.join(folder, module)}:{names}"  # noqa: PTH118  keeps what is absolute
    family, colon, member = value.partition(":")
    if colon and family == "hf" and (folder / member).is_dir():
        return f"hf:{folder / member}"
    return str(folder / value) if is_file(folder / value) else value


def _toml() -> Any:
    for name in ("tomllib", "tomli"):  # the first is in Python from 3.11 on
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(
        "A description of a network needs the package tomli: pip install 'captum_groupcam[cli]'",
        name="tomli",
    )
