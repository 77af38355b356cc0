"""``captum-groupcam`` and ``python -m captum_groupcam``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line, or says how to install what it needs."""
    try:
        from captum_groupcam.apps.cli import app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in {"typer", "rich"}:
            raise
        sys.exit(
            f"The command line needs the package {package}: pip install 'captum_groupcam[cli]'"
        )
    app()


if __name__ == "__main__":
    main()
