"""LiteLLM's own rate limiter, as a worker of its proxy makes it; also for `bench.py`."""

from __future__ import annotations

import os
from typing import Any


def make_handler(redis_port: int | None = None, room: int | None = None) -> Any:
    """One limiter of LiteLLM's.

    Args:
        redis_port: where it counts; None = in its own memory.
        room: items that its memory holds; None = as many as a worker's.
    """
    from litellm.caching.caching import DualCache
    from litellm.caching.in_memory_cache import InMemoryCache
    from litellm.proxy.hooks import parallel_request_limiter_v3 as limiter
    from litellm.proxy.utils import InternalUsageCache

    tiers: dict[str, Any] = {}
    if redis_port is not None:
        from litellm.caching.redis_cache import RedisCache

        tiers["redis_cache"] = RedisCache(host="127.0.0.1", port=redis_port)
    if room is not None:
        tiers["in_memory_cache"] = InMemoryCache(max_size_in_memory=room)
    cache = DualCache(default_in_memory_ttl=1, **tiers)
    return limiter._PROXY_MaxParallelRequestsHandler_v3(InternalUsageCache(cache))


def accelerate() -> None:
    """Apply the seams; limiters made from now on count in the region.

    Raises:
        RuntimeError: the rate limiter's seam is not applied.
    """
    import fast_litellm

    os.environ["FAST_LITELLM_ENABLED"] = "true"
    fast_litellm.apply_acceleration()
    # The seam tells its state when it meets the first limiter.
    make_handler()
    state = fast_litellm.get_patch_status()["seams"]["rate_limiting"]
    if state["state"] != "applied":
        raise RuntimeError(f"the seam is not applied: {state['reason']}")


def request_descriptor(key: str, per_minute: int) -> list[dict[str, Any]]:
    """What LiteLLM's limiter is asked about a request of `key`."""
    return [{"key": "api_key", "value": key, "rate_limit": {"requests_per_unit": per_minute}}]
