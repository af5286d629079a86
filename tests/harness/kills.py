"""How soon the slots of a worker that was killed are free for others."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from . import load
from .proxy import FakeBackend, Proxy, owners_of_ports
from .results import Result

HOLD_S = 25.0
POLL_S = 0.05
FREED_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Slots:
    """Slots that requests hold: how many there are, and which requests take them."""

    count: int
    key: str
    model: str = "fake"


def kill_holder(proxy: Proxy, backend: FakeBackend, slots: Slots) -> Result:
    """A worker dies while it holds some of the slots, which are all held.

    Reports how many requests got in while all were held (`admitted_when_full`), how long after the kill
    the first one did (`freed_after_s`, None if it took too long) and the last one was sent that did not
    (`refused_until_s`, 0 if none was), and how many of the slots of the dead worker (`killed_held`) could
    be used again (`refilled`).
    """
    boots = proxy.boots()
    backend.reset()
    backend.configure(slots.model, latency=HOLD_S)
    start = time.monotonic()
    result = asyncio.run(_kill_holder(proxy, backend, slots))
    result["elapsed_s"] = round(time.monotonic() - start, 2)
    backend.reset()
    proxy.wait_for_boots(boots + 1)
    return result


async def _kill_holder(proxy: Proxy, backend: FakeBackend, slots: Slots) -> Result:
    async with load.session() as client:

        def send() -> Awaitable[load.Reply]:
            return load.complete(client, proxy.base_url, slots.key, model=slots.model)

        holders = [asyncio.ensure_future(send()) for _ in range(slots.count)]
        try:
            return await _kill_while_held(proxy, backend, slots, send)
        finally:
            for holder in holders:
                holder.cancel()
            await asyncio.gather(*holders, return_exceptions=True)


async def _kill_while_held(
    proxy: Proxy, backend: FakeBackend, slots: Slots, send: Callable[[], Awaitable[load.Reply]]
) -> Result:
    async def burst(n: int, concurrency: int) -> load.Burst:
        keys = [slots.key]
        return await load.burst_async(proxy.base_url, keys, n, concurrency, model=slots.model)

    held = await _wait_for_in_flight(backend, slots)
    backend.configure(slots.model, latency=0.05)
    probes = await burst(20, 4)

    victim, killed_held = _smallest_holder(proxy, backend, slots)
    proxy.kill_worker(victim)
    freed_after_s, refused_until_s = await _seconds_until_admitted(send)

    # Longer than it takes to send all of them, so that no slot is used twice.
    backend.configure(slots.model, latency=5.0)
    await asyncio.sleep(1.0)
    refill = await burst(20, 20)
    return {
        "held": held,
        "admitted_when_full": probes.admitted,
        "killed_held": killed_held,
        "freed_after_s": freed_after_s,
        "refused_until_s": refused_until_s,
        "refilled": refill.admitted,
        "unexpected": probes.unexpected + refill.unexpected,
        # Slots have no window.
        "within_window": True,
    }


async def _wait_for_in_flight(backend: FakeBackend, slots: Slots) -> int:
    deadline = time.monotonic() + HOLD_S / 2
    held = 0
    while held < slots.count and time.monotonic() < deadline:
        held = int(backend.stats(slots.model)["in_flight"])
        await asyncio.sleep(POLL_S)
    if held < slots.count:
        raise RuntimeError(f"only {held} of {slots.count} requests reached the provider")
    return held


def _smallest_holder(proxy: Proxy, backend: FakeBackend, slots: Slots) -> tuple[int, int]:
    """The worker that holds the fewest slots but some, and how many it holds."""
    ports = backend.stats(slots.model)["client_ports"]
    owners = owners_of_ports(proxy.worker_pids(), ports, backend.port)
    if len(owners) != len(ports):
        raise RuntimeError(f"no worker owns some of the connections {ports}; found {owners}")
    return min(Counter(owners.values()).items(), key=lambda item: item[1])


async def _seconds_until_admitted(
    send: Callable[[], Awaitable[load.Reply]],
) -> tuple[float | None, float]:
    start, refused_until_s = time.monotonic(), 0.0
    while (elapsed := time.monotonic() - start) < FREED_TIMEOUT_S:
        try:
            reply = await asyncio.wait_for(send(), FREED_TIMEOUT_S - elapsed)
        except asyncio.TimeoutError:
            return None, refused_until_s
        if reply.status == 200:
            return round(time.monotonic() - start, 3), refused_until_s
        refused_until_s = round(elapsed, 3)
        await asyncio.sleep(POLL_S)
    return None, refused_until_s
