"""Plain Python as one would write it: a dictionary and a lock, nothing that a limit does not need."""

from __future__ import annotations

import platform
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.contenders import AbsentError, Limiter, Pool, Router
from benchmarks.deployments import MODEL, in_flight, models_of


def version() -> str:
    """Version of the interpreter."""
    return platform.python_version()


class FreeList:
    """Connections of each endpoint: those that are free, and how many there are."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._free: dict[str, list[str]] = {}
        self._made: dict[str, int] = {}
        self._endpoints: dict[str, str] = {}

    def take(self, endpoint: str) -> str | None:
        """One that is free, or a new one within the limit."""
        with self._lock:
            free = self._free.setdefault(endpoint, [])
            if free:
                return free.pop()
            made = self._made.get(endpoint, 0)
            if made >= self._limit:
                return None
            self._made[endpoint] = made + 1
            name = f"{endpoint}#{made}"
            self._endpoints[name] = endpoint
            return name

    def give(self, name: str) -> None:
        """Take one back."""
        with self._lock:
            self._free[self._endpoints[name]].append(name)


class Bucket:
    """The arrival time that a key has used up to, which is all that a token bucket needs."""

    def __init__(self, per_minute: int, burst: int) -> None:
        self._interval_s = 60 / per_minute
        self._tolerance_s = self._interval_s * burst
        self._lock = threading.Lock()
        self._used: dict[str, float] = {}

    def check(self, key: str) -> dict[str, Any]:
        """Charge a request."""
        with self._lock:
            now = time.monotonic()
            after = max(self._used.get(key, now), now) + self._interval_s
            # The tolerance of a microsecond is for rounding.
            left_s = now + self._tolerance_s + 1e-6 - after
            if left_s < 0:
                return {
                    "allowed": False,
                    "reason": "rate_limited",
                    "remaining_requests": 0,
                    "retry_after_ms": int(-left_s * 1_000) + 1,
                }
            self._used[key] = after
        return {
            "allowed": True,
            "reason": "ok",
            "remaining_requests": int(left_s / self._interval_s),
            "retry_after_ms": None,
        }


def pool(limit: int) -> Pool:
    """A list of free ones."""
    made = FreeList(limit)
    return Pool(made.take, made.give, limit)


def limiter(per_minute: int, burst: int) -> Limiter:
    """A token bucket of one number per key."""
    return Limiter(Bucket(per_minute, burst).check, lambda answer: answer["allowed"], burst)


def limiter_for(keys: int) -> Limiter:
    """The same, of one request a minute."""
    return limiter(1, 1)


def router(strategy: str, count: int) -> Router:
    """A comprehension over the list, and what the strategy asks for."""
    busy = {
        model["model_info"]["id"]: in_flight(number)
        for number, model in enumerate(models_of(count))
    }

    def shuffle(models: list[dict[str, Any]]) -> Any:
        found = [model for model in models if model["model_name"] == MODEL]
        weights = [model["litellm_params"]["rpm"] for model in found]
        return random.choices(found, weights)[0]

    def least_busy(models: list[dict[str, Any]]) -> Any:
        found = [model for model in models if model["model_name"] == MODEL]
        random.shuffle(found)
        return min(found, key=lambda model: busy[model["model_info"]["id"]])

    return Router({"simple_shuffle": shuffle, "least_busy": least_busy}[strategy])


def counter() -> Callable[[str], int]:
    """The library that Python programs count with."""
    try:
        # LiteLLM brings the encodings along and says where they are.
        import litellm.litellm_core_utils.default_encoding  # noqa: F401
        import tiktoken
    except ImportError as error:
        raise AbsentError(f"tiktoken cannot be loaded: {error}") from error
    encode = tiktoken.get_encoding("cl100k_base").encode_ordinary
    return lambda text: len(encode(text))
