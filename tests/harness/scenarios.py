"""What each kind of limit lets through, measured on a running proxy.

A scenario is a function of a proxy and the provider behind it, and returns the numbers it measured.
It makes up new keys each time, so that scenarios can follow each other on one proxy.

Every scenario reports `elapsed_s`, and `within_window`: a burst that outlasts the window of the
rate limits is let through more often than the limit says, and its numbers mean nothing. It also
reports `unexpected`, the replies that are neither a success nor a rejection.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from . import load
from .load import Burst
from .proxy import FakeBackend, Proxy, owners_of_ports

Result = dict[str, Any]

CONCURRENCY = 20
"""Enough to keep several workers busy at once, and no more than the machine can serve."""

HOLD_S = 25.0
POLL_S = 0.05
FREED_TIMEOUT_S = 10.0


def rpm(proxy: Proxy, backend: FakeBackend) -> Result:
    """A key of 20 requests a minute, asked for 200."""
    backend.reset()
    return _admission(proxy, load.burst(proxy.base_url, [_key("r20")], 200, CONCURRENCY))


def user_rpm(proxy: Proxy, backend: FakeBackend) -> Result:
    """A user of 20 requests a minute over five keys, asked for 200."""
    backend.reset()
    user = f"u{_unique().upper()}"
    keys = [_key(user, "ur20") for _ in range(5)]
    return _admission(proxy, load.burst(proxy.base_url, keys, 200, CONCURRENCY))


def tpm(proxy: Proxy, backend: FakeBackend) -> Result:
    """A key of 900 tokens a minute, asked for 200 answers of 30 tokens.

    LiteLLM reserves its estimate before the call and settles the difference after it. The estimate
    is 10 tokens of prompt and `max_tokens`, here 24 in all: 6 short of the answer, so that the
    result shows whether the difference arrives. If it never did, 37 would get through. As the
    requests in flight are not settled yet, an exact limiter lets through 30 to 32.
    """
    backend.reset()
    burst = load.burst(proxy.base_url, [_key("t900")], 200, 8, max_tokens=14)
    return _admission(proxy, burst)


def parallel(proxy: Proxy, backend: FakeBackend) -> Result:
    """A key of 5 requests at a time, asked for 100 at once, plain and then streamed."""
    plain = _parallel(proxy, backend, stream=False)
    streamed = _parallel(proxy, backend, stream=True)
    return {
        "peak": plain["peak"],
        "after": plain["after"],
        "stream_peak": streamed["peak"],
        "stream_after": streamed["after"],
        **_merged(proxy, plain["burst"], streamed["burst"]),
    }


def many_keys(proxy: Proxy, backend: FakeBackend) -> Result:
    """150 keys of 3 requests a minute each, each asked for 8 in turn."""
    backend.reset()
    keys = [_key("r3") for _ in range(150)]
    return _admission(proxy, load.burst(proxy.base_url, keys, 8 * len(keys), CONCURRENCY))


def kill_holder(proxy: Proxy, backend: FakeBackend) -> Result:
    """A key of 5 requests at a time; a worker dies while it holds some of the 5.

    Reports how many requests got in while all 5 were held (`admitted_when_full`), how long after
    the kill the first one did (`freed_after_s`, None if it took too long), and how many of the
    slots of the dead worker (`killed_held`) could be used again (`refilled`).
    """
    boots = proxy.boots()
    backend.reset()
    backend.configure(latency=HOLD_S)
    start = time.monotonic()
    result = asyncio.run(_kill_holder(proxy, backend))
    result["elapsed_s"] = round(time.monotonic() - start, 2)
    backend.reset()
    proxy.wait_for_boots(boots + 1)
    return result


@dataclass(frozen=True)
class Figure:
    """One number of a scenario that has a known ideal."""

    label: str
    ideal: str
    read: Callable[[Result], str]


@dataclass(frozen=True)
class Scenario:
    """A scenario and the figures to show of it."""

    run: Callable[[Proxy, FakeBackend], Result]
    figures: tuple[Figure, ...]


def _number(name: str) -> Callable[[Result], str]:
    return lambda result: str(result[name])


def _freed(result: Result) -> str:
    if result["admitted_when_full"]:
        # Nothing had to be freed for the next request to get in.
        return "never full"
    seconds = result["freed_after_s"]
    return f"> {FREED_TIMEOUT_S:.0f}" if seconds is None else f"{seconds:.2f}"


SCENARIOS: dict[str, Scenario] = {
    "rpm": Scenario(
        rpm,
        (Figure("key rpm 20, 200 sent: admitted", "20", _number("admitted")),),
    ),
    "user_rpm": Scenario(
        user_rpm,
        (Figure("user rpm 20 over 5 keys, 200 sent: admitted", "20", _number("admitted")),),
    ),
    "tpm": Scenario(
        tpm,
        (Figure("key tpm 900, 30 tokens each: admitted", "30-32", _number("admitted")),),
    ),
    "parallel": Scenario(
        parallel,
        (
            Figure("key parallel 5, 100 at once: peak", "5", _number("peak")),
            Figure("  5 more once idle: admitted", "5", _number("after")),
            Figure("  the same streamed: peak", "5", _number("stream_peak")),
            Figure("  5 more once idle: admitted", "5", _number("stream_after")),
        ),
    ),
    "many_keys": Scenario(
        many_keys,
        (Figure("150 keys of rpm 3, 1200 sent: admitted", "450", _number("admitted")),),
    ),
    # Last, since it leaves a worker behind that has served nothing yet.
    "kill_holder": Scenario(
        kill_holder,
        (
            Figure(
                "key parallel 5, all held, 20 more: admitted", "0", _number("admitted_when_full")
            ),
            Figure("  a holder killed: seconds until one is admitted", "< 1", _freed),
            Figure(
                "  its slots used again / held",
                "n/n",
                lambda result: f"{result['refilled']}/{result['killed_held']}",
            ),
        ),
    ),
}


def warm_up(proxy: Proxy) -> None:
    """Have the workers serve unlimited requests; the first one in each is slow."""
    load.burst(proxy.base_url, [_key()], 12 * proxy.workers, 3 * proxy.workers)


def _unique() -> str:
    return uuid.uuid4().hex[:12]


def _key(*limits: str) -> str:
    return "-".join(("sk", *limits, _unique()))


def _merged(proxy: Proxy, *bursts: Burst) -> Result:
    statuses = sum((burst.statuses for burst in bursts), Counter[int]())
    return {
        "statuses": dict(statuses),
        "unexpected": [reply for burst in bursts for reply in burst.unexpected],
        "elapsed_s": round(sum(burst.elapsed_s for burst in bursts), 2),
        "within_window": max(burst.elapsed_s for burst in bursts) < proxy.window_seconds,
    }


def _admission(proxy: Proxy, burst: Burst) -> Result:
    return {"admitted": burst.admitted, **_merged(proxy, burst)}


def _parallel(proxy: Proxy, backend: FakeBackend, *, stream: bool) -> Result:
    backend.reset()
    backend.configure(latency=1.0)
    key = _key("p5")
    burst = load.burst(proxy.base_url, [key], 100, 100, stream=stream)
    peak = backend.stats()["peak"]
    # LiteLLM gives a slot back in a callback that may run after the answer has left.
    time.sleep(1.0)
    after = load.burst(proxy.base_url, [key], 5, 5, stream=stream)
    return {"peak": peak, "after": after.admitted, "burst": burst}


async def _kill_holder(proxy: Proxy, backend: FakeBackend) -> Result:
    key = _key("p5")
    async with load.session() as client:

        def send() -> Awaitable[load.Reply]:
            return load.complete(client, proxy.base_url, key)

        holders = [asyncio.ensure_future(send()) for _ in range(5)]
        try:
            return await _kill_while_held(proxy, backend, key, send)
        finally:
            for holder in holders:
                holder.cancel()
            await asyncio.gather(*holders, return_exceptions=True)


async def _kill_while_held(
    proxy: Proxy, backend: FakeBackend, key: str, send: Callable[[], Awaitable[load.Reply]]
) -> Result:
    held = await _wait_for_in_flight(backend, 5)
    backend.configure(latency=0.05)
    probes = await load.burst_async(proxy.base_url, [key], 20, 4)

    victim, killed_held = _smallest_holder(proxy, backend)
    proxy.kill_worker(victim)
    freed_after_s = await _seconds_until_admitted(send)

    # Longer than it takes to send all of them, so that no slot is used twice.
    backend.configure(latency=5.0)
    await asyncio.sleep(1.0)
    refill = await load.burst_async(proxy.base_url, [key], 20, 20)
    return {
        "held": held,
        "admitted_when_full": probes.admitted,
        "killed_held": killed_held,
        "freed_after_s": freed_after_s,
        "refilled": refill.admitted,
        "unexpected": probes.unexpected + refill.unexpected,
        # Slots have no window.
        "within_window": True,
    }


async def _wait_for_in_flight(backend: FakeBackend, count: int) -> int:
    deadline = time.monotonic() + HOLD_S / 2
    while (held := int(backend.stats()["in_flight"])) < count and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)
    if held < count:
        raise RuntimeError(f"only {held} of {count} requests reached the provider")
    return held


def _smallest_holder(proxy: Proxy, backend: FakeBackend) -> tuple[int, int]:
    """The worker that holds the fewest slots but some, and how many it holds."""
    ports = backend.stats()["client_ports"]
    owners = owners_of_ports(proxy.worker_pids(), ports)
    if len(owners) != len(ports):
        raise RuntimeError(f"no worker owns some of the connections {ports}; found {owners}")
    return min(Counter(owners.values()).items(), key=lambda item: item[1])


async def _seconds_until_admitted(send: Callable[[], Awaitable[load.Reply]]) -> float | None:
    start = time.monotonic()
    while (elapsed := time.monotonic() - start) < FREED_TIMEOUT_S:
        try:
            reply = await asyncio.wait_for(send(), FREED_TIMEOUT_S - elapsed)
        except asyncio.TimeoutError:
            return None
        if reply.status == 200:
            return round(time.monotonic() - start, 3)
        await asyncio.sleep(POLL_S)
    return None
