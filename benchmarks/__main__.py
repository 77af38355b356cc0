"""``python -m benchmarks``: the command line of the benchmark."""

from __future__ import annotations

import sys

from .commands import app

__all__ = ["app"]

if __name__ == "__main__":
    sys.exit(app())
