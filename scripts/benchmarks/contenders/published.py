"""fast-litellm as published on the package index, in an environment of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contenders import AbsentError, Limiter, Pool, Router
from benchmarks.deployments import MODEL

#: What its statistics call the maximum per endpoint; it cannot be told another number.
POOL_LIMIT = 10
#: Burst of every key but "default", whatever the limiter was made with.
NAMED_BURST = 20


def version() -> str:
    """Version of the package."""
    import fast_litellm

    if not fast_litellm.RUST_ACCELERATION_AVAILABLE:
        raise AbsentError("its extension cannot be loaded")
    return str(fast_litellm.__version__)


def pool(limit: int) -> Pool:
    """Its pool."""
    from fast_litellm import SimpleConnectionPool

    if limit != POOL_LIMIT:
        raise AbsentError(f"its limit is {POOL_LIMIT} and cannot be changed")
    made: Any = SimpleConnectionPool("bench")
    return Pool(made.get_connection, made.return_connection, limit)


def limiter(per_minute: int, burst: int) -> Limiter:
    """Its limiter. What is asked for holds for the key "default" only."""
    from fast_litellm import SimpleRateLimiter

    made: Any = SimpleRateLimiter(per_minute)
    return Limiter(made.check, lambda answer: answer["allowed"], burst, uses=NAMED_BURST)


def limiter_for(keys: int) -> Limiter:
    """Its limiter, which makes room for each key as it comes."""
    from fast_litellm import SimpleRateLimiter, get_rate_limit_stats

    made: Any = SimpleRateLimiter(1)

    def known(names: Sequence[str]) -> int:
        stats: Any = get_rate_limit_stats()
        return sum(name in stats for name in names)

    return Limiter(made.check, lambda answer: answer["allowed"], 1, known=known)


def router(strategy: str, count: int) -> Router:
    """Its router."""
    from fast_litellm import AdvancedRouter

    pick: Any = AdvancedRouter(strategy).get_available_deployment
    return Router(lambda models: pick(models, MODEL))


def counter() -> Callable[[str], int]:
    """From a text to its number of tokens."""
    from fast_litellm import SimpleTokenCounter

    count: Any = SimpleTokenCounter().count_tokens
    return lambda text: count(text, "gpt-4")
