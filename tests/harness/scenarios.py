"""All scenarios: what each limit lets through, measured on a running proxy.

A scenario is a function of a proxy and the provider behind it, and returns the numbers it measured. It
says which setup of the proxy it needs; scenarios of one setup can follow each other on one proxy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import deployments, key_limits, load
from .kills import FREED_TIMEOUT_S
from .proxy import FakeBackend, Proxy
from .results import Result, new_key
from .setups import ALLOWED_FAILS, GLOBAL_PARALLEL, HEALTH_INTERVAL_S, PARALLEL, RPM, SETUPS


@dataclass(frozen=True)
class Figure:
    """One number of a scenario that has a known ideal."""

    label: str
    ideal: str
    read: Callable[[Result], str]


@dataclass(frozen=True)
class Scenario:
    """A scenario, the figures to show of it, and the setup it needs."""

    run: Callable[[Proxy, FakeBackend], Result]
    figures: tuple[Figure, ...]
    setup: str = "keys"


def _number(name: str) -> Callable[[Result], str]:
    return lambda result: str(result[name])


def _freed(result: Result) -> str:
    if result["admitted_when_full"]:
        # Nothing had to be freed for the next request to get in.
        return "never full"
    seconds = result["freed_after_s"]
    return f"> {FREED_TIMEOUT_S:.0f}" if seconds is None else f"{seconds:.2f}"


def _refilled(result: Result) -> str:
    return "-" if result["admitted_when_full"] else f"{result['refilled']}/{result['killed_held']}"


def _disagreed(result: Result) -> str:
    seconds = result["disagreed_s"]
    return "never agreed" if seconds is None else f"{seconds:.2f}"


def _kill_figures(subject: str) -> tuple[Figure, ...]:
    return (
        Figure(f"{subject}, all held, 20 more: admitted", "0", _number("admitted_when_full")),
        Figure("  a holder killed: seconds until one is admitted", "< 1", _freed),
        Figure("  its slots used again / held", "n/n", _refilled),
    )


SCENARIOS: dict[str, Scenario] = {
    "rpm": Scenario(
        key_limits.rpm,
        (Figure("key rpm 20, 200 sent: admitted", "20", _number("admitted")),),
    ),
    "user_rpm": Scenario(
        key_limits.user_rpm,
        (Figure("user rpm 20 over 5 keys, 200 sent: admitted", "20", _number("admitted")),),
    ),
    "tpm": Scenario(
        key_limits.tpm,
        (Figure("key tpm 900, 30 tokens each: admitted", "30-32", _number("admitted")),),
    ),
    "parallel": Scenario(
        key_limits.parallel,
        (
            Figure("key parallel 5, 100 at once: peak", "5", _number("peak")),
            Figure("  5 more once idle: admitted", "5", _number("after")),
            Figure("  the same streamed: peak", "5", _number("stream_peak")),
            Figure("  5 more once idle: admitted", "5", _number("stream_after")),
        ),
    ),
    "many_keys": Scenario(
        key_limits.many_keys,
        (Figure("150 keys of rpm 3, 1200 sent: admitted", "450", _number("admitted")),),
    ),
    # Last of its setup, since it leaves a worker behind that has served nothing yet.
    "kill_holder": Scenario(key_limits.kill_holder, _kill_figures("key parallel 5")),
    "deployment_rpm": Scenario(
        deployments.deployment_rpm,
        (Figure(f"deployment rpm {RPM}, 300 sent: reached it", str(RPM), _number("reached")),),
        "deployments",
    ),
    "deployment_parallel": Scenario(
        deployments.deployment_parallel,
        (
            Figure(
                f"deployment parallel {PARALLEL}, 100 at once: peak", str(PARALLEL), _number("peak")
            ),
            Figure(f"  {PARALLEL} more once idle: admitted", str(PARALLEL), _number("after")),
            Figure("  the same streamed: peak", str(PARALLEL), _number("stream_peak")),
            Figure(
                f"  {PARALLEL} more once idle: admitted", str(PARALLEL), _number("stream_after")
            ),
        ),
        "deployments",
    ),
    "cooldown": Scenario(
        deployments.cooldown,
        (Figure("one of two answers 429, 200 sent: hits on it", "1-2", _number("hits")),),
        "deployments",
    ),
    "failing": Scenario(
        deployments.failing,
        (Figure("one of two answers 500, 300 sent: hits on it", "5-6", _number("hits")),),
        "deployments",
    ),
    # Last of its setup, like kill_holder.
    "kill_caller": Scenario(
        deployments.kill_caller, _kill_figures(f"deployment parallel {PARALLEL}"), "deployments"
    ),
    "allowed_fails": Scenario(
        deployments.failing,
        (Figure(f"  with allowed_fails {ALLOWED_FAILS}: hits on it", "5-6", _number("hits")),),
        "allowed_fails",
    ),
    "least_busy": Scenario(
        deployments.least_busy,
        (Figure("least-busy, 12 held by 6 deployments: most at one", "2", _number("most")),),
        "least_busy",
    ),
    "latency": Scenario(
        deployments.latency,
        (Figure("latency-based, 200 sent: hits on the slow one", "0", _number("hits")),),
        "latency",
    ),
    "usage_v2": Scenario(
        deployments.usage_v2,
        (
            Figure(
                f"usage-based v2, rpm {RPM}, 300 sent: reached it",
                f"{RPM - 1}-{RPM}",
                _number("reached"),
            ),
        ),
        "usage_v2",
    ),
    "health_checks": Scenario(
        deployments.health_checks,
        (
            Figure(
                f"health checks each {HEALTH_INTERVAL_S} s: probes each",
                "1",
                _number("probes_per_interval"),
            ),
            Figure("  a deployment falls ill: seconds that /health differs", "0", _disagreed),
        ),
        "general",
    ),
    "global_parallel": Scenario(
        key_limits.global_parallel,
        (
            Figure(
                f"global parallel {GLOBAL_PARALLEL}, 100 at once: peak",
                str(GLOBAL_PARALLEL),
                _number("peak"),
            ),
            Figure(
                f"  {GLOBAL_PARALLEL} more once idle: admitted",
                str(GLOBAL_PARALLEL),
                _number("after"),
            ),
        ),
        "general",
    ),
}


def by_setup(names: Iterable[str]) -> list[str]:
    """The names, those of one setup next to each other."""
    order = list(SETUPS)
    return sorted(names, key=lambda name: order.index(SCENARIOS[name].setup))


def measure(name: str, proxy: Proxy, backend: FakeBackend) -> Result:
    """Put the proxy on a scenario's setup and run it.

    The result also has how long that took: `setup_s`, and `took_s` for the scenario alone.
    """
    scenario = SCENARIOS[name]
    begun = time.monotonic()
    if proxy.use(SETUPS[scenario.setup]):
        warm_up(proxy)
    ready = time.monotonic()
    result = scenario.run(proxy, backend)
    took_s = time.monotonic() - ready
    return {**result, "setup_s": round(ready - begun, 1), "took_s": round(took_s, 1)}


def warm_up(proxy: Proxy) -> None:
    """Have the workers serve unlimited requests; the first one in each is slow."""
    load.burst(proxy.base_url, [new_key()], 12 * proxy.workers, 3 * proxy.workers)
