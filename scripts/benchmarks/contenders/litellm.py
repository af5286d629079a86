"""LiteLLM's own code, as a worker of its proxy runs it, in a process that never saw fast_litellm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.contenders import AbsentError, Limiter, Pool, Router
from benchmarks.deployments import litellm_choices, models_of
from benchmarks.limiters import make_handler, request_descriptor


def version() -> str:
    """Version of the package."""
    from importlib.metadata import version

    try:
        import litellm  # noqa: F401  # it has to load
    except ImportError as error:
        raise AbsentError(f"LiteLLM cannot be loaded: {error}") from error
    return version("litellm")


def pool(limit: int) -> Pool:
    """What LiteLLM has in a pool's place: a client of each provider, kept in a cache."""
    from litellm.llms.custom_httpx.http_handler import get_async_httpx_client

    take: Any = get_async_httpx_client
    return Pool(take, lambda client: None, None)


def limiter(per_minute: int, burst: int) -> Limiter:
    """The proxy's limiter; its window of a minute has no burst."""
    return _limiter(make_handler(), per_minute)


def limiter_for(keys: int) -> Limiter:
    """The same, with the memory that a worker has for its counters."""
    return _limiter(make_handler(), 1)


def _limiter(handler: Any, per_minute: int) -> Limiter:
    decide = handler.should_rate_limit

    async def check(key: str) -> Any:
        return await decide(request_descriptor(key, per_minute))

    return Limiter(check, lambda answer: answer["overall_code"] == "OK", per_minute, awaited=True)


def router(strategy: str, count: int) -> Router:
    """The code of the strategy alone; LiteLLM's router around it takes longer."""
    return Router(litellm_choices(models_of(count))[strategy])


def counter() -> Callable[[str], int]:
    """From a text to its number of tokens."""
    import litellm

    count: Any = litellm.token_counter
    return lambda text: count(model="gpt-4", text=text)
