"""Connections to endpoints, limited over all workers: the pool `default`, and pools of one's own."""

from __future__ import annotations

from typing import Any

from fast_litellm import _native

SimpleConnectionPool = _native.SimpleConnectionPool


_pool: _native.SimpleConnectionPool | None = None


def _default_pool() -> _native.SimpleConnectionPool:
    global _pool
    # Made at first use, for the region may not be wanted. Whoever makes it twice has the same pool twice.
    if _pool is None:
        _pool = SimpleConnectionPool()
    return _pool


def get_connection(endpoint: str) -> str | None:
    """Get the id of a connection to `endpoint` from the pool `default`.

    Returns:
        The id, or None when as many connections as may be are in use, here or in other workers.

    Raises:
        TypeError: `endpoint` is not a str.
        ConfigError: a setting `FAST_LITELLM_POOL_*` is malformed.
        RegionError: no region exists and none can be created.
    """
    return (_pool or _default_pool()).get_connection(endpoint)


def return_connection(
    connection_id: str,
    success: bool | None = None,
    error: BaseException | str | None = None,
) -> None:
    """Give a connection back; it is kept idle for this worker's next request.

    One that was given back before, or is another worker's, is left alone and counted as `stale_returns`.

    Args:
        connection_id: as `get_connection` returned it.
        success: how the endpoint behaved; a connection that failed is closed instead of kept.
        error: the exception or a text, from which the kind of failure is told.

    Raises:
        ValueError: `connection_id` is no id.
    """
    (_pool or _default_pool()).return_connection(connection_id, success, error)


def remove_connection(connection_id: str) -> None:
    """Take a connection of this worker out of the pool, in use or idle.

    Raises:
        ValueError: `connection_id` is no id.
    """
    _default_pool().remove_connection(connection_id)


def health_check_connection(connection_id: str) -> bool:
    """Tell whether a connection is this worker's, its time is not over, and its endpoint is healthy.

    Raises:
        ValueError: `connection_id` is no id.
    """
    return _default_pool().health_check(connection_id)


def cleanup_expired_connections() -> None:
    """Close idle connections whose time is over, and free what dead workers held."""
    _default_pool().cleanup()


def get_connection_pool_stats() -> dict[str, Any]:
    """Tell what the pool `default` is like, over all workers; see `SimpleConnectionPool.get_stats`."""
    return dict(_default_pool().get_stats())
