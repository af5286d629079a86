"""fast_litellm of this checkout, as installed in the environment that runs the benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.contenders import AbsentError, Limiter, Pool, Router
from benchmarks.deployments import models_of, our_choices

#: Keys that a region has room for by default.
ROOM = 65_536


def version() -> str:
    """Version of the package."""
    import fast_litellm

    if not fast_litellm.RUST_ACCELERATION_AVAILABLE:
        raise AbsentError("not there: its extension is not installed")
    if not hasattr(fast_litellm, "Leader"):
        raise AbsentError("not there: what is installed is the published package of the same name")
    return str(fast_litellm.__version__)


def pool(limit: int) -> Pool:
    """A pool with `limit` connections per endpoint."""
    import fast_litellm

    if not hasattr(fast_litellm, "SimpleConnectionPool"):
        raise AbsentError("not there: this build has no SimpleConnectionPool")
    made = fast_litellm.SimpleConnectionPool("bench", max_per_endpoint=limit, max_total=1_000)
    return Pool(made.get_connection, made.return_connection, limit)


def limiter(per_minute: int, burst: int) -> Limiter:
    """A limiter in the region of this process."""
    from fast_litellm import SimpleRateLimiter

    made = SimpleRateLimiter(per_minute, burst=burst)
    return Limiter(made.check, lambda answer: answer["allowed"], burst)


def limiter_for(keys: int) -> Limiter:
    """A limiter of one request a minute, in a region with the usual room, or more if needed."""
    return limiter_with_room(ROOM if keys <= ROOM // 2 else keys * 3 // 2)


def limiter_with_room(room: int) -> Limiter:
    """A limiter of one request a minute, in a region of its own with room for that many keys."""
    from fast_litellm import SimpleRateLimiter
    from fast_litellm._rust import Region

    region = Region.create("bench", keys=room)
    made = SimpleRateLimiter(1, burst=1, region=region)
    return Limiter(made.check, lambda answer: answer["allowed"], 1)


def router(strategy: str, count: int) -> Router:
    """A router that knows `count` deployments."""
    return Router(our_choices(models_of(count))[strategy])


def counter() -> Callable[[str], int]:
    """From a text to its number of tokens."""
    import fast_litellm

    if not hasattr(fast_litellm, "SimpleTokenCounter"):
        raise AbsentError("not there: this build has no SimpleTokenCounter")
    count: Any = fast_litellm.SimpleTokenCounter().count_tokens
    return lambda text: count(text, "gpt-4")
