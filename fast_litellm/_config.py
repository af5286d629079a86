"""Settings, all from environment variables, each checked where it is read."""

from __future__ import annotations

import os
from typing import NamedTuple

from fast_litellm.errors import ConfigError

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def flag(name: str, default: bool) -> bool:
    """Read a switch.

    Raises:
        ConfigError: the value is neither true nor false.
    """
    raw = os.environ.get(name, "").strip()
    if not raw:
        return default
    if raw.lower() in _TRUE:
        return True
    if raw.lower() in _FALSE:
        return False
    raise ConfigError(f"{name}={raw!r} is neither true nor false: use true or false")


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


def _words(name: str) -> tuple[str, ...] | None:
    raw = os.environ.get(name, "")
    words = tuple(word.strip() for word in raw.split(",") if word.strip())
    return words or None


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
            name=os.environ.get("FAST_LITELLM_SHM_NAME", "").strip() or "fast_litellm",
            keys=_integer("FAST_LITELLM_SHM_KEYS", 65_536),
            lease_chunks=_integer("FAST_LITELLM_SHM_LEASE_CHUNKS", 8_192),
            workers=_integer("FAST_LITELLM_SHM_WORKERS", 256),
            deployments=_integer("FAST_LITELLM_SHM_DEPLOYMENTS", 1_024),
            overflow=os.environ.get("FAST_LITELLM_SHM_OVERFLOW", "").strip() or "deny",
            backing=_words("FAST_LITELLM_SHM_BACKING"),
            directories=_words("FAST_LITELLM_SHM_DIR"),
            force=flag("FAST_LITELLM_SHM_FORCE", default=False),
        )
