"""Load: many chat completions, each on a connection of its own.

A fresh connection per request is what makes the kernel spread the requests over the workers; a
kept-alive connection would stay with whichever worker accepted it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

REQUEST_TIMEOUT_S = 90.0

EXPECTED = (200, 429)
"""A success, and a rejection."""

PROMPT = "Please say five words and then stop now."
"""40 characters, which LiteLLM estimates at 10 tokens: as many as the fake provider charges."""


@dataclass
class Reply:
    """One answer. A request that got none, or only part of one, has status 0."""

    status: int
    body: str


@dataclass
class Burst:
    """What came back from a burst of requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0
    expected: Collection[int] = EXPECTED

    @property
    def admitted(self) -> int:
        """How many requests got through."""
        return self.statuses[200]

    @property
    def rejected(self) -> int:
        """How many requests were told that they are over a limit."""
        return self.statuses[429]

    def add(self, reply: Reply) -> None:
        """Count one reply, and keep it when it is not an expected one."""
        self.statuses[reply.status] += 1
        if reply.status not in self.expected:
            self.unexpected.append(f"{reply.status}: {reply.body}")


def session() -> aiohttp.ClientSession:
    """A client session that opens a connection per request, as many as asked for."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0),
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
    )


async def complete(
    client: aiohttp.ClientSession,
    base_url: str,
    key: str,
    *,
    model: str = "fake",
    stream: bool = False,
    max_tokens: int | None = None,
    prompt: str = PROMPT,
) -> Reply:
    """Send one chat completion and read all of its answer."""
    payload: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": stream,
    }
    if max_tokens is not None:
        payload["max_tokens"] = max_tokens
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{base_url}/v1/chat/completions"
    try:
        async with client.post(url, json=payload, headers=headers) as response:
            body = await response.text()
            status = response.status
    except (aiohttp.ClientError, asyncio.TimeoutError) as error:
        return Reply(0, repr(error))
    # An error in mid-stream arrives under a status of 200.
    if stream and status == 200 and "data: [DONE]" not in body:
        return Reply(0, f"stream broke off: {body[-500:]}")
    return Reply(status, body)


async def burst_async(
    base_url: str,
    keys: Sequence[str],
    n: int,
    concurrency: int,
    *,
    expected: Collection[int] = EXPECTED,
    **request: Any,
) -> Burst:
    """Send `n` requests, `concurrency` at a time, going round the keys.

    Statuses that are not `expected` are kept as odd ones; `request` is handed on to `complete`.
    """
    result = Burst(expected=expected)
    gate = asyncio.Semaphore(concurrency)

    async def one(client: aiohttp.ClientSession, number: int) -> None:
        key = keys[number % len(keys)]
        async with gate:
            result.add(await complete(client, base_url, key, **request))

    start = time.monotonic()
    async with session() as client:
        await asyncio.gather(*(one(client, number) for number in range(n)))
    result.elapsed_s = time.monotonic() - start
    return result


def burst(base_url: str, keys: Sequence[str], n: int, concurrency: int, **options: Any) -> Burst:
    """`burst_async` for callers that run no event loop."""
    return asyncio.run(burst_async(base_url, keys, n, concurrency, **options))
