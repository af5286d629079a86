"""The extension's exceptions, where it is not built."""

from __future__ import annotations


class RegionError(Exception):
    """The shared region cannot be created or attached to."""


class UnavailableError(Exception):
    """The region cannot decide this operation."""


class OutOfRangeError(ValueError):
    """A value is outside the range of the operation."""


class PanicException(BaseException):
    """Stands for what a panic in the extension becomes."""
