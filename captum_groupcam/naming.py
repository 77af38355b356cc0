"""Objects by name: ``package.module:object`` and ``path/file.py:object``.

Looking one up imports the module, which runs its code. So only names that a user has typed are
looked up here, never a name that came with data or through a page.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["find_object", "is_reference", "one_line", "short_reference", "split_reference"]


def is_reference(text: str) -> bool:
    """Whether a text names an object of a module or file, as far as its form says.

    Args:
        text (str): Any text.

    Returns:
        bool: Whether it is of the form ``package.module:object`` or ``path/file.py:object``.

    Examples::

        >>> [is_reference(text) for text in ("mypkg.model:build", "nets/cnn.py:Net", "resnet50")]
        [True, True, False]
        >>> is_reference("group_cam:n_groups=8")
        False
    """
    module, colon, names = text.rpartition(":")
    return bool(colon) and bool(module) and _is_dotted(names) and _is_module(module)


def split_reference(text: str) -> tuple[str, str]:
    """Splits an object's name from what follows it after a colon, as options do.

    Args:
        text (str): ``name``, ``name:rest``, ``module:object`` or ``module:object:rest``. What has
            an equals sign before its next colon is no object.

    Returns:
        tuple of str: The name and the rest, which may be empty.

    Examples::

        >>> split_reference("group_cam:n_groups=8")
        ('group_cam', 'n_groups=8')
        >>> split_reference("mypkg.methods:my_cam:power=2")
        ('mypkg.methods:my_cam', 'power=2')
        >>> split_reference("nets/cams.py:my_cam")
        ('nets/cams.py:my_cam', '')
    """
    first, _, rest = text.partition(":")
    names, _, options = rest.partition(":")
    if is_reference(f"{first.strip()}:{names.strip()}"):
        return f"{first.strip()}:{names.strip()}", options
    return first, rest


def short_reference(text: str) -> str:
    """The name of an object without the folders of its file, as tables and file names show it.

    Args:
        text (str): A reference, see :func:`is_reference`.

    Returns:
        str: The short form.

    Examples::

        >>> short_reference("study/cams.py:my_cam"), short_reference("mypkg.cams:my_cam")
        ('cams.py:my_cam', 'mypkg.cams:my_cam')
    """
    module, _, names = text.rpartition(":")
    return f"{Path(module).name}:{names}" if module.endswith(".py") else text


def find_object(reference: str, *, folder: str | Path = "") -> Any:
    """Imports what a name stands for.

    A package is looked for where Python looks, and then in the current folder; so is what a file
    imports from beside it. Nothing installed is hidden by that.

    Args:
        reference (str): ``package.module:object`` or ``path/file.py:object``; the object may be an
            attribute of another (``module:class.method``).
        folder (str or Path, optional): What the path of a file is relative to. Default: "", the
            current folder.

    Returns:
        Any: The object.

    Raises:
        ValueError: If the reference is of another form, there is no such file, module or object,
            or its code fails; the message says where.

    Examples::

        >>> find_object("torch.nn:Flatten").__name__
        'Flatten'
    """
    if not is_reference(reference):
        raise ValueError(
            f"Expected package.module:object or path/file.py:object, got {reference!r}."
        )
    name, _, names = reference.rpartition(":")
    module = _from_file(Path(folder) / name) if name.endswith(".py") else _from_package(name)
    found: Any = module
    for attribute in names.split("."):
        if not hasattr(found, attribute):
            raise ValueError(_missing(found, module, attribute, reference))
        found = getattr(found, attribute)
    return found


def one_line(error: BaseException) -> str:
    """What an exception says, in one line, with its type and the place in the code it is from.

    Args:
        error (BaseException): An exception that was raised.

    Returns:
        str: ``NameError: name 'nn' is not defined (mynet.py, line 12)``

    Examples::

        >>> try:
        ...     {}["width"]
        ... except KeyError as error:
        ...     print(one_line(error).partition(" (")[0])
        KeyError: 'width'
    """
    said = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        place = f" ({error.filename}, line {error.lineno})"
        said = str(error.msg)
    else:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if said else ''}{said}{place}"


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _is_module(text: str) -> bool:
    return text.endswith(".py") or _is_dotted(text)


def _from_package(name: str) -> ModuleType:
    _search(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, error) from error  # of what the module imports
        raise ValueError(
            f"There is no module {error.name!r}: expected one of an installed package or of the "
            "current folder, or path/file.py:object."
        ) from None
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    path = path.resolve()
    # A name that is no other module's, by which its classes and functions can be pickled.
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    name = f"{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _search(path.parent)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, (Exception, SystemExit)):
            raise
        raise _failed(str(path), error) from error
    return module


def _search(folder: Path) -> None:
    """Lets modules be found in a folder, after all other places."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()


def _failed(name: str, error: BaseException) -> ValueError:
    return ValueError(f"Importing {name} failed: {one_line(error)}")


def _missing(owner: Any, module: ModuleType, attribute: str, reference: str) -> str:
    public = [name for name in dir(owner) if not name.startswith("_")]
    close = difflib.get_close_matches(attribute, public, n=3)
    hint = f"; did you mean {', '.join(close)}?" if close else "."
    return f"{module.__file__} has no {attribute!r}, which {reference} names{hint}"
