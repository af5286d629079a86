"""The rate limiter for programs of your own."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fast_litellm import _native

SimpleRateLimiter = _native.SimpleRateLimiter


@lru_cache(maxsize=1)
def _default_limiter() -> _native.SimpleRateLimiter:
    return SimpleRateLimiter()


def check_rate_limit(key: str) -> dict[str, Any]:
    """Charge one request to `key` at 60 requests per minute and explain the answer.

    The quota is that of `SimpleRateLimiter()`: both count the same requests, in all workers.

    Returns:
        `allowed` (bool), `reason` (str: "ok", "rate_limited", "table_full" or "contended"),
        `remaining_requests` (int: would be admitted now), `retry_after_ms` (int, or None when allowed).

    Raises:
        TypeError: `key` is not a str.
        RegionError: no region exists and none can be created.
    """
    if key is None:
        raise TypeError("key must be a str, not NoneType")
    return dict(_default_limiter().check(key))


def get_rate_limit_stats() -> dict[str, Any]:
    """Sum up all rate limiters, over all workers, since the region was created.

    Returns:
        `total_checks`, `allowed_count`, `denied_count`, `active_keys` (int); with the extension also
        `table_full` and `contended`: operations the region could not decide.

    Raises:
        RegionError: no region exists and none can be created.
    """
    if not _native.RUST_ACCELERATION_AVAILABLE:
        from fast_litellm._fallback import limiter_stats

        return dict(limiter_stats())
    from fast_litellm._region import process_region

    return dict(process_region().limiter_stats())
