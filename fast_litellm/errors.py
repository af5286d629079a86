"""What can go wrong, each message with the value and the remedy."""

from fast_litellm._native import OutOfRangeError, RegionError, UnavailableError


class FastLitellmError(Exception):
    """Base of the errors raised by the Python part of the package."""


class UnknownModelError(FastLitellmError, ValueError):
    """Nothing is known of a model that a price or a limit is asked of."""


class ConfigError(FastLitellmError, ValueError):
    """An environment variable or a file of settings has a value that cannot be used."""


__all__ = [
    "ConfigError",
    "FastLitellmError",
    "OutOfRangeError",
    "RegionError",
    "UnavailableError",
    "UnknownModelError",
]
