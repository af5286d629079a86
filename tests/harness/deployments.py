"""Scenarios about what LiteLLM's Router knows of its deployments.

A deployment is the same one as long as the configuration is, so what a scenario leaves behind is there
when it runs once more on the same configuration: deployments that cool down are not hit again, and
those of a calendar minute have no more requests in it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass

import aiohttp

from . import load
from .kills import Slots, kill_holder
from .load import Burst
from .proxy import FakeBackend, Proxy
from .results import CONCURRENCY, SETTLE_S, Result, counted, minute, new_key, wait_for_minute
from .setups import COOLDOWN_S, HEALTH_INTERVAL_S, PARALLEL, QUICK

BURST_S = 20.0
"""How much of a minute a burst may need on a busy machine."""

HELD_S = 60.0
"""How long a request is kept that is to be in flight."""

FLIPS = (500, 200)
"""What the sick deployment answers, one after the other."""

FLIP_S = HEALTH_INTERVAL_S + 2.0
"""How long it does: every worker has a round of health checks in that time."""


def deployment_rpm(proxy: Proxy, backend: FakeBackend) -> Result:
    """A deployment of so many requests in a calendar minute, asked for 300."""
    return _limited(proxy, backend)


def usage_v2(proxy: Proxy, backend: FakeBackend) -> Result:
    """The same limit, kept by usage-based routing.

    It picks no deployment that has one request left, so whether the last one is let through depends on
    how many are picking at that moment.
    """
    return _limited(proxy, backend)


def deployment_parallel(proxy: Proxy, backend: FakeBackend) -> Result:
    """A deployment of so many requests at a time, asked for 100 at once, plain and then streamed."""
    plain = _narrow(proxy, backend, stream=False)
    streamed = _narrow(proxy, backend, stream=True)
    return {
        "peak": plain["peak"],
        "after": plain["after"],
        "stream_peak": streamed["peak"],
        "stream_after": streamed["after"],
        **counted(plain["burst"], streamed["burst"]),
    }


def kill_caller(proxy: Proxy, backend: FakeBackend) -> Result:
    """A deployment of so many requests at a time; a worker dies in the middle of some of them."""
    return kill_holder(proxy, backend, Slots(PARALLEL, new_key(), "narrow"))


def cooldown(proxy: Proxy, backend: FakeBackend) -> Result:
    """One of two deployments answers 429, which sets it aside at once; asked for 200.

    Requests go out two at a time: the second one may be on its way when the first one fails.
    """
    backend.reset()
    backend.configure("cooldown-bad", status=429, quotes=True)
    burst = load.burst(proxy.base_url, [new_key()], 200, 2, model="cooldown")
    return _hits(backend, "cooldown-bad", burst)


def failing(proxy: Proxy, backend: FakeBackend) -> Result:
    """One of two deployments answers 500; asked for 300.

    By default LiteLLM sets a deployment aside when it has been asked five times within a minute and more
    than half of that failed; with `allowed_fails` it allows so many failures.
    """
    backend.reset()
    backend.configure("failing-bad", status=500, quotes=True)
    burst = load.burst(
        proxy.base_url, [new_key()], 300, 2, model="failing", expected=(200, 429, 500)
    )
    return _hits(backend, "failing-bad", burst)


def least_busy(proxy: Proxy, backend: FakeBackend) -> Result:
    """Six deployments get 12 requests that are not answered, each when the one before has arrived.

    LiteLLM has those that come at the same moment make the same choice, however much it knows. Reports
    how many the deployments have (`in_flight`), and the most that one has (`most`).
    """
    backend.reset()
    names = [f"busy-{name}" for name in ("slow", *QUICK)]
    for name in names:
        backend.configure(name, latency=HELD_S)
    begun = time.monotonic()
    in_flight, statuses = asyncio.run(_one_by_one(proxy, backend, names, 12))
    elapsed_s = time.monotonic() - begun
    return {
        "in_flight": in_flight,
        "most": max(in_flight),
        "statuses": dict(Counter(statuses)),
        "unexpected": [status for status in statuses if status != 200],
        "elapsed_s": round(elapsed_s, 2),
        "within_window": elapsed_s < HELD_S,
    }


async def _one_by_one(
    proxy: Proxy, backend: FakeBackend, names: list[str], count: int
) -> tuple[list[int], list[int]]:
    def in_flight() -> list[int]:
        return [int(backend.stats(name)["in_flight"]) for name in names]

    async with load.session() as client:
        requests = []
        for number in range(count):
            one = load.complete(client, proxy.base_url, new_key(), model="busy")
            requests.append(asyncio.ensure_future(one))
            while sum(in_flight()) <= number and not requests[-1].done():
                await asyncio.sleep(0.01)
        found = in_flight()
        # Answers them all.
        backend.reset()
        return found, [reply.status for reply in await asyncio.gather(*requests)]


def latency(proxy: Proxy, backend: FakeBackend) -> Result:
    """Six deployments, one of them slow; 200 requests by many callers once that is known.

    LiteLLM tries a deployment that it has no measurement of before any other. So requests go out one by
    one until the slow one has answered one of them (`warm_up_hits`); from then on a worker that asks it
    once more does not know what another one has found out.
    """
    backend.reset()
    # Longer than the machine ever takes for a quick one.
    backend.configure("latency-slow", latency=3.0)
    for name in QUICK:
        backend.configure(f"latency-{name}", latency=0.05)
    key = new_key()
    warm_up = Burst()
    while not _total(backend, "latency-slow"):
        if sum(warm_up.statuses.values()) == 20:
            raise RuntimeError("LiteLLM never tried the slow deployment")
        one = load.burst(proxy.base_url, [key], 1, 1, model="latency")
        warm_up.statuses += one.statuses
        warm_up.unexpected += one.unexpected
    time.sleep(SETTLE_S)
    warm_up_hits = _total(backend, "latency-slow")
    burst = load.burst(proxy.base_url, [key], 200, CONCURRENCY, model="latency")
    return {
        "warm_up_hits": warm_up_hits,
        "hits": _total(backend, "latency-slow") - warm_up_hits,
        **counted(warm_up, burst),
    }


def health_checks(proxy: Proxy, backend: FakeBackend) -> Result:
    """Two deployments in background health checks, one of which becomes ill and well by turns.

    Before that the oldest worker dies and another one takes its place, in the middle of an interval: the
    workers that boot together would have their rounds of checks together.

    Reports how often the sound one was asked per interval (`probes_per_interval`), and for how long at
    most `/health` still told the old state after it had told the new one (`disagreed_s`, None if the
    new one was not seen at all).
    """
    backend.reset()
    _renew_a_worker(proxy, backend)
    backend.reset()
    start = time.monotonic()
    periods = asyncio.run(_watch_health(proxy, backend))
    elapsed_s = time.monotonic() - start
    answers = [answer for period in periods for answer in period.answers]
    delays = [period.disagreed_s() for period in periods]
    return {
        "probes_per_interval": round(_total(backend, "sound") / elapsed_s * HEALTH_INTERVAL_S, 1),
        "disagreed_s": None if None in delays else round(max(filter(None, delays), default=0.0), 2),
        "answers": len(answers),
        "unexpected": [answer.error for answer in answers if answer.error],
        "elapsed_s": round(elapsed_s, 2),
        "within_window": True,
    }


@dataclass(frozen=True)
class _HealthAnswer:
    begun: float
    ended: float
    unhealthy: int
    error: str = ""


@dataclass(frozen=True)
class _Period:
    """All answers of `/health` while the sick deployment was in one state."""

    unhealthy: int
    answers: list[_HealthAnswer]

    def disagreed_s(self) -> float | None:
        """From the first answer with the state to the last request that was told another one."""
        known = [answer.ended for answer in self.answers if answer.unhealthy == self.unhealthy]
        if not known:
            return None
        stale = [answer.begun for answer in self.answers if answer.unhealthy != self.unhealthy]
        return max(0.0, max(stale, default=0.0) - min(known))


def _renew_a_worker(proxy: Proxy, backend: FakeBackend) -> None:
    proxy.wait_until(lambda: _total(backend, "sound") > 0, 3 * FLIP_S, "check any health")
    time.sleep(HEALTH_INTERVAL_S / 2)
    boots = proxy.boots()
    proxy.kill_worker(proxy.worker_pids()[0])
    proxy.wait_for_boots(boots + 1)


async def _watch_health(proxy: Proxy, backend: FakeBackend) -> list[_Period]:
    periods = []
    async with load.session() as client:
        for status in FLIPS:
            backend.configure("sick", status=status)
            end = time.monotonic() + FLIP_S
            watchers = (_watch_until(end, client, proxy.base_url) for _ in range(proxy.workers))
            answers = itertools.chain(*await asyncio.gather(*watchers))
            periods.append(_Period(int(status != 200), list(answers)))
    return periods


async def _watch_until(
    end: float, client: aiohttp.ClientSession, base_url: str
) -> list[_HealthAnswer]:
    answers = []
    while time.monotonic() < end:
        answers.append(await _ask_health(client, base_url))
        await asyncio.sleep(0.2)
    return answers


async def _ask_health(client: aiohttp.ClientSession, base_url: str) -> _HealthAnswer:
    begun = time.monotonic()
    headers = {"Authorization": f"Bearer {new_key()}"}
    try:
        async with client.get(f"{base_url}/health", headers=headers) as response:
            body = await response.text()
        unhealthy, error = int(json.loads(body)["unhealthy_count"]), ""
    except (aiohttp.ClientError, asyncio.TimeoutError) as failure:
        unhealthy, error = -1, repr(failure)
    except (KeyError, ValueError):
        unhealthy, error = -1, f"{response.status}: {body}"
    return _HealthAnswer(begun, time.monotonic(), unhealthy, error)


def _limited(proxy: Proxy, backend: FakeBackend) -> Result:
    backend.reset()
    begun = wait_for_minute(BURST_S)
    burst = load.burst(proxy.base_url, [new_key()], 300, CONCURRENCY, model="limited")
    return {
        "reached": _total(backend, "limited"),
        **counted(burst),
        "within_window": minute() == begun,
    }


def _narrow(proxy: Proxy, backend: FakeBackend, *, stream: bool) -> Result:
    backend.reset()
    # Longer than it takes to send all of them.
    backend.configure("narrow", latency=2.5)
    key = new_key()
    burst = load.burst(proxy.base_url, [key], 100, 100, model="narrow", stream=stream)
    peak = backend.stats("narrow")["peak"]
    backend.configure("narrow", latency=1.0)
    time.sleep(SETTLE_S)
    after = load.burst(proxy.base_url, [key], PARALLEL, PARALLEL, model="narrow", stream=stream)
    return {"peak": peak, "after": after.admitted, "burst": burst}


def connections(proxy: Proxy, backend: FakeBackend) -> Result:
    """100 requests at once, of a provider that takes its time: the sockets that it has open."""
    backend.reset()
    backend.configure("fake", latency=0.3)
    burst = load.burst(proxy.base_url, [new_key()], 100, 100)
    return {"peak": backend.peak_of_sockets(), **counted(burst)}


def _hits(backend: FakeBackend, deployment: str, burst: Burst) -> Result:
    return {
        "hits": _total(backend, deployment),
        **counted(burst),
        "within_window": burst.elapsed_s < COOLDOWN_S,
    }


def _total(backend: FakeBackend, deployment: str) -> int:
    return int(backend.stats(deployment)["total"])
