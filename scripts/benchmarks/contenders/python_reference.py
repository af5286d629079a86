"""Plain Python of the kind that the published package's own benchmark compares itself with.

Its pool looks at what has been idle for too long, and counts who is out, with each connection; its
limiter keeps a bucket and the times of the last minute's requests for each key; its router keeps
statistics. Written anew to that description.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from benchmarks.contenders import Limiter, Pool, Router
from benchmarks.contenders.python import version
from benchmarks.deployments import MODEL

__all__ = ["limiter", "limiter_for", "pool", "router", "version"]

IDLE_S = 60.0


class SweptPool:
    """Connections with the time of their last use."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: dict[str, list[tuple[str, float]]] = {}
        self._out: dict[str, str] = {}
        self._checked: dict[str, float] = {}
        self._made = 0

    def take(self, endpoint: str) -> str | None:
        """Look after the endpoint, then hand out a connection."""
        now = time.time()
        with self._lock:
            if now - self._checked.get(endpoint, 0.0) > 5.0:
                self._checked[endpoint] = now
        with self._lock:
            idle = [entry for entry in self._idle.get(endpoint, ()) if now - entry[1] < IDLE_S]
            self._idle[endpoint] = idle
            if idle:
                name = idle.pop()[0]
            elif sum(1 for other in self._out.values() if other == endpoint) < self._limit:
                self._made += 1
                name = f"connection-{self._made}"
            else:
                return None
            self._out[name] = endpoint
            return name

    def give(self, name: str) -> None:
        """Take one back."""
        now = time.time()
        with self._lock:
            endpoint = self._out.pop(name, None)
            if endpoint is not None:
                self._idle[endpoint].append((name, now))


class BucketAndWindow:
    """A bucket, and a list of the last minute's times, for each key."""

    def __init__(self, per_minute: int, burst: int) -> None:
        self._per_minute = per_minute
        self._per_second = per_minute / 60
        self._burst = burst
        self._lock = threading.Lock()
        self._buckets: dict[str, dict[str, float]] = {}
        self._times: dict[str, list[float]] = {}

    def check(self, key: str) -> dict[str, Any]:
        """Charge a request."""
        now = time.time()
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = {"tokens": float(self._burst), "at": now}
            earned = (now - bucket["at"]) * self._per_second
            bucket["tokens"] = min(float(self._burst), bucket["tokens"] + earned)
            bucket["at"] = now
            times = [at for at in self._times.get(key, ()) if at > now - 60.0]
            self._times[key] = times
            if bucket["tokens"] < 1 or len(times) >= self._per_minute:
                return {"allowed": False, "reason": "rate limited", "remaining_requests": 0}
            bucket["tokens"] -= 1
            times.append(now)
            left = int(bucket["tokens"])
        return {"allowed": True, "reason": "ok", "remaining_requests": left}

    def forget(self) -> None:
        """Drop the times: a list that grows with each request makes each later one dearer."""
        self._times.clear()


def pool(limit: int) -> Pool:
    """A pool that sweeps."""
    made = SweptPool(limit)
    return Pool(made.take, made.give, limit)


def limiter(per_minute: int, burst: int) -> Limiter:
    """A bucket and a window."""
    made = BucketAndWindow(per_minute, burst)
    return Limiter(made.check, lambda answer: answer["allowed"], burst, renew=made.forget)


def limiter_for(keys: int) -> Limiter:
    """The same, of one request a minute."""
    return limiter(1, 1)


def router(strategy: str, count: int) -> Router:
    """A lock, a comprehension, a draw, and statistics."""
    lock = threading.Lock()
    requests: dict[str, dict[str, float]] = {}

    def row(model: dict[str, Any]) -> dict[str, float]:
        return requests.setdefault(model["model_info"]["id"], {"requests": 0, "used": 0.0})

    def choose(models: list[dict[str, Any]]) -> Any:
        with lock:
            found = [model for model in models if model["model_name"] == MODEL]
            if strategy == "least_busy":
                chosen = min(found, key=lambda model: row(model)["requests"])
            else:
                chosen = random.choice(found)
            counted = row(chosen)
            counted["requests"] += 1
            counted["used"] = time.time()
            return chosen

    return Router(choose)
