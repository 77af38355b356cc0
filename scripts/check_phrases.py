"""Finds phrases that the field does not use: ``python scripts/check_phrases.py``.

They stand in ``pyproject.toml``, each with what to write instead.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
TEXTS = ("*.py", "*.md", "*.html", "*.sh", "*.yml", "*.cff", "*.ipynb")


def phrases() -> dict[str, str]:
    """The phrases, regular expressions, and what to write instead."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return dict(settings["tool"]["phrases"])


def found(text: str, unwanted: dict[str, str]) -> list[tuple[int, str, str]]:
    """Looks for phrases, also where one is broken over two lines.

    Args:
        text (str): A file's text.
        unwanted (dict): Phrases and what to write instead.

    Returns:
        list of (int, str, str): Line, phrase, and what to write instead.
    """
    hits = []
    for phrase, better in unwanted.items():
        pattern = re.compile(rf"\b{phrase}\b".replace(" ", r"\s+(?:#:? )?"), re.IGNORECASE)
        hits += [
            (text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), better)
            for match in pattern.finditer(text)
        ]
    return sorted(hits)


def main() -> int:
    """Prints what is found; the exit status says whether there is anything."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *TEXTS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    unwanted = phrases()
    lines = [
        f"{name}:{line}: {phrase!r}: {better}"
        for name in listed.stdout.split("\0")
        if name
        for line, phrase, better in found((ROOT / name).read_text("utf-8"), unwanted)
    ]
    print(*lines, sep="\n", end="\n" * bool(lines))
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
