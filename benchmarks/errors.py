"""What ends a run, and is no fault of what was typed."""

from __future__ import annotations

__all__ = ["ConfigurationError", "DeviceError", "RowError"]


class ConfigurationError(Exception):
    """A folder is of no run, or of another one; the message says what differs."""


class RowError(Exception):
    """Rows that cannot be written or read; the message says what to do."""


class DeviceError(Exception):
    """A device that answers no more; the message says what to do."""
