"""Settings, all from environment variables, each checked where it is read."""

from __future__ import annotations

import math
import os
from typing import NamedTuple

from fast_litellm.errors import ConfigError

#: How a switch is said to be on, and off.
TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off"}
#: Part of fast_litellm's own operations that is timed by default.
_SAMPLED = 0.02
_MOST_CONNECTIONS = 65_535
_YEAR_S = 31_536_000


def flag(name: str, default: bool) -> bool:
    """Read a switch.

    Raises:
        ConfigError: the value is neither true nor false.
    """
    raw = os.environ.get(name, "").strip()
    if not raw:
        return default
    if raw.lower() in TRUE:
        return True
    if raw.lower() in FALSE:
        return False
    raise ConfigError(f"{name}={raw!r} is neither true nor false: use true or false")


def breaker_rest_s() -> int:
    """`FAST_LITELLM_BREAKER_REST_S`: seconds until a feature that failed is tried again; 0 = never.

    Raises:
        ConfigError: it is no whole number from 0 to 86,400.
    """
    rest_s = _integer("FAST_LITELLM_BREAKER_REST_S", 30)
    if 0 <= rest_s <= 86_400:
        return rest_s
    raise ConfigError(f"FAST_LITELLM_BREAKER_REST_S={rest_s}: use 0 to 86,400 seconds")


def _integer(name: str, default: int) -> int:
    raw = os.environ.get(name, "").strip()
    if not raw:
        return default
    try:
        return int(raw)
    except ValueError:
        raise ConfigError(f"{name}={raw!r} is not a whole number") from None


def max_connections_per_host() -> int | None:
    """Read `FAST_LITELLM_MAX_CONNECTIONS_PER_HOST`; None = connections are not bounded.

    Raises:
        ConfigError: it is no whole number from 1 on.
    """
    name = "FAST_LITELLM_MAX_CONNECTIONS_PER_HOST"
    most = _integer(name, 0)
    if most < 1 and os.environ.get(name, "").strip():
        raise ConfigError(f"{name}={most}: use 1 or more, or leave it unset for no bound")
    return most or None


def _text(name: str) -> str:
    raw = os.environ.get(name, "").strip()
    try:
        raw.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name}={raw!r} is not text: use UTF-8") from None
    return raw


def _words(raw: str) -> tuple[str, ...] | None:
    words = tuple(word.strip() for word in raw.split(",") if word.strip())
    return words or None


def _kinds(name: str) -> tuple[str, ...] | None:
    kinds = _words(_text(name))
    # The engine's name for memory that not even forked children share.
    if kinds and "heap" in kinds:
        raise ConfigError(
            f"{name}={','.join(kinds)}: workers cannot share a heap: use memfd, file or anonymous"
        )
    return kinds


def performance_sampling() -> int:
    """One in how many operations is timed: `FAST_LITELLM_PERFORMANCE_SAMPLING`, a part of them; 0 = none.

    Raises:
        ConfigError: the value is not a number from 0 to 1.
    """
    name = "FAST_LITELLM_PERFORMANCE_SAMPLING"
    raw = os.environ.get(name, "").strip()
    try:
        part = float(raw or _SAMPLED)
    except ValueError:
        part = -1.0
    # Not a number is not in the range.
    if not 0 <= part <= 1:
        raise ConfigError(f"{name}={raw!r} is not a number from 0 (none) to 1 (all): use 0.02")
    return min(round(1 / part), 2**32 - 1) if part > 1e-12 else 0


def _seconds(name: str, default: float) -> float:
    raw = os.environ.get(name, "").strip()
    if not raw:
        return default
    try:
        value = float(raw)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _YEAR_S:
        raise ConfigError(f"{name}={raw!r} is not a time: use 0 (without end) to 31536000 seconds")
    return value


def _connections(name: str, default: int) -> int:
    value = _integer(name, default)
    if not 1 <= value <= _MOST_CONNECTIONS:
        raise ConfigError(f"{name}={value} is out of range: use 1 to {_MOST_CONNECTIONS}")
    return value


class PoolSettings(NamedTuple):
    """What connection pools allow that are not told otherwise.

    Attributes:
        max_per_endpoint: `FAST_LITELLM_POOL_MAX_PER_ENDPOINT`: connections to one endpoint.
        max_total: `FAST_LITELLM_POOL_MAX_TOTAL`: connections of a pool.
        idle_timeout_s: `FAST_LITELLM_POOL_IDLE_TIMEOUT_S`: seconds that an idle one is kept,
            0 = without end.
        max_age_s: `FAST_LITELLM_POOL_MAX_AGE_S`: seconds after which one is not kept, 0 = without end.
    """

    max_per_endpoint: int
    max_total: int
    idle_timeout_s: float
    max_age_s: float

    @classmethod
    def from_environment(cls) -> PoolSettings:
        """Read all settings.

        Raises:
            ConfigError: one of them has a malformed value, or one that is out of range.
        """
        return cls(
            max_per_endpoint=_connections("FAST_LITELLM_POOL_MAX_PER_ENDPOINT", 10),
            max_total=_connections("FAST_LITELLM_POOL_MAX_TOTAL", 100),
            idle_timeout_s=_seconds("FAST_LITELLM_POOL_IDLE_TIMEOUT_S", 300.0),
            max_age_s=_seconds("FAST_LITELLM_POOL_MAX_AGE_S", 3_600.0),
        )


class RegionSettings(NamedTuple):
    """Where the region lives and how large it is.

    Attributes:
        path: `FAST_LITELLM_SHM`: file shared by processes that do not fork from one parent.
        name: `FAST_LITELLM_SHM_NAME`: name of an inherited region in `fl-shm ls`.
        keys: `FAST_LITELLM_SHM_KEYS`: keys it has room for.
        lease_chunks: `FAST_LITELLM_SHM_LEASE_CHUNKS`: chunks of 32 concurrency slots.
        workers: `FAST_LITELLM_SHM_WORKERS`: processes that may be registered at once.
        deployments: `FAST_LITELLM_SHM_DEPLOYMENTS`: deployments whose health is kept.
        overflow: `FAST_LITELLM_SHM_OVERFLOW`: what happens to a key without room (deny, shared, local).
        backing: `FAST_LITELLM_SHM_BACKING`: kinds of memory to try, comma-separated
            (memfd, file, anonymous).
        directories: `FAST_LITELLM_SHM_DIR`: tmpfs directories for the kind `file`, comma-separated.
        force: `FAST_LITELLM_SHM_FORCE`: accept a file that is not on tmpfs.
    """

    path: str | None
    name: str
    keys: int
    lease_chunks: int
    workers: int
    deployments: int
    overflow: str
    backing: tuple[str, ...] | None
    directories: tuple[str, ...] | None
    force: bool

    @classmethod
    def from_environment(cls) -> RegionSettings:
        """Read all settings.

        Raises:
            ConfigError: one of them has a malformed value.
        """
        path = os.environ.get("FAST_LITELLM_SHM", "").strip()
        return cls(
            path=path or None,
            name=_text("FAST_LITELLM_SHM_NAME") or "fast_litellm",
            keys=_integer("FAST_LITELLM_SHM_KEYS", 65_536),
            lease_chunks=_integer("FAST_LITELLM_SHM_LEASE_CHUNKS", 8_192),
            workers=_integer("FAST_LITELLM_SHM_WORKERS", 256),
            deployments=_integer("FAST_LITELLM_SHM_DEPLOYMENTS", 1_024),
            overflow=_text("FAST_LITELLM_SHM_OVERFLOW") or "deny",
            backing=_kinds("FAST_LITELLM_SHM_BACKING"),
            directories=_words(os.environ.get("FAST_LITELLM_SHM_DIR", "")),
            force=flag("FAST_LITELLM_SHM_FORCE", default=False),
        )
