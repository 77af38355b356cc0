"""What commands print: names as a terminal takes them, errors in one line, progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["printable", "progress_bar", "say", "usage_errors"]


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""A text as a terminal takes it: what it cannot show, or would obey, is escaped.

    Args:
        text (str): Any text, names of files among them.
        encoding (str, optional): The terminal's. Default: "utf-8".

    Returns:
        str: The text in one line.

    Examples::

        >>> printable("caf\u00e9 \x1b[31m\udcff.png")
        'café \\x1b[31m\\udcff.png'
        >>> printable("caf\u00e9", "ascii")
        'caf\\xe9'
    """
    escaped = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def say(console: Console, text: str, style: str = "") -> None:
    """Prints a line as it is.

    Args:
        console (rich.console.Console): Where to.
        text (str): The line.
        style (str, optional): A colour. Default: "".
    """
    # Names are not markup, and a path that is broken over lines cannot be copied.
    console.print(
        printable(text, console.encoding),
        style=style,
        markup=False,
        highlight=False,
        soft_wrap=True,
        emoji=False,
    )


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turns what a wrong argument raises into one line and exit status 2.

    Yields:
        None: While the arguments are looked at.

    Raises:
        typer.Exit: If a value, a type, a file is wrong, or a package is missing.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        say(Console(stderr=True), " ".join(str(error).split()), "red")
        raise typer.Exit(2) from error


def progress_bar(console: Console) -> Progress:
    """A bar that goes away when it is full.

    Args:
        console (rich.console.Console): Where to; no bar is drawn where nobody watches.
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    # Where nobody watches, a bar is only an empty line.
    unseen = not console.is_terminal
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=unseen)
