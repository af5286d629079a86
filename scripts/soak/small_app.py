"""A small service that limits by the shared region; boots in less than a second.

    POST /free
    POST /window/LIMIT/SECONDS/KEY      a window, by the scripts that LiteLLM's limiter is given
    POST /quota/PER_MINUTE/BURST/KEY    SimpleRateLimiter
    POST /slots/LIMIT/HOLD_MS/KEY       AdvancedRouter: calls in flight

Answers 200 if admitted, 429 if refused. `SOAK_SABOTAGE` breaks it in a way that a soak has to find.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import fast_litellm
from fast_litellm import _native

SABOTAGE = os.environ.get("SOAK_SABOTAGE", "")
BUSY_S = 0.004
NAME = os.environ.get("FAST_LITELLM_SHM_NAME", "soak")


class Limits:
    """The limits of one process, made in each worker with the first request."""

    def __init__(self) -> None:
        region = _native.default_region()
        if region is None or SABOTAGE == "private":
            region = _native.Region.create("private", keys=1024)
        if SABOTAGE == "region":
            self.second = _native.Region.create(NAME, keys=1024)
        self._region = region
        self._scripts = _native.LimiterScripts(region)
        self._router = fast_litellm.AdvancedRouter(region=region)
        self._limiters: dict[tuple[int, int], fast_litellm.SimpleRateLimiter] = {}
        self._kept: list[object] = []

    def window(self, limit: int, seconds: int, key: str) -> bool:
        """Charge one request to a window."""
        keys = [f"{{{key}}}:window", f"{{{key}}}:requests"]
        cost = 2 if SABOTAGE == "under" and random.random() < 0.2 else 1
        return bool(
            self._scripts.check_and_increment_by_n(keys, [limit, cost, seconds, seconds])[0] == 0
        )

    def quota(self, per_minute: int, burst: int, key: str) -> bool:
        """Charge one request to a quota."""
        limiter = self._limiters.get((per_minute, burst))
        if limiter is None:
            limiter = fast_litellm.SimpleRateLimiter(per_minute, burst=burst, region=self._region)
            self._limiters[per_minute, burst] = limiter
        if SABOTAGE == "under" and random.random() < 0.2:
            limiter.is_allowed(key)
        return limiter.is_allowed(key)

    async def slot(self, limit: int, hold_ms: int, key: str) -> bool:
        """Hold a slot for some time."""
        call = self._router.start(key, max_parallel=limit)
        if call is None:
            return SABOTAGE == "crowd" and random.random() < 0.2
        if SABOTAGE == "leak" and random.random() < 0.1:
            self._kept.append(call)
            await asyncio.sleep(hold_ms / 1000.0)
            return True
        with call:
            await asyncio.sleep(hold_ms / 1000.0)
        return True


class App:
    """The ASGI application."""

    def __init__(self) -> None:
        self._limits: Limits | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            raise ValueError("only HTTP")
        self._limits = self._limits or Limits()
        # A worker that is busy leaves the next connection to another one; else one would take them all.
        time.sleep(BUSY_S)
        kind, *values = scope["path"].strip("/").split("/")
        admitted = True
        if kind == "window":
            admitted = self._limits.window(int(values[0]), int(values[1]), values[2])
        elif kind == "quota":
            admitted = self._limits.quota(int(values[0]), int(values[1]), values[2])
        elif kind == "slots":
            admitted = await self._limits.slot(int(values[0]), int(values[1]), values[2])
        status = 200 if admitted else 429
        headers = [(b"content-length", b"2"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok" if admitted else b"no"})


def grow() -> None:
    """Keep more and more memory."""
    kept = []
    while True:
        kept.append(os.urandom(1 << 20))
        time.sleep(0.05)


app = App()

if SABOTAGE == "process":
    subprocess.run(["sh", "-c", "setsid sleep 600 &"], check=True)
elif SABOTAGE == "file":
    Path("/dev/shm", f"{NAME}-{os.getpid()}").write_text("left")
elif SABOTAGE == "memory":
    threading.Thread(target=grow, daemon=True).start()
