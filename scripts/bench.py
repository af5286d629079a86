"""What a decision costs: from Python, beside LiteLLM's routing, inside its limiter, and in instructions.

    .venv/bin/python scripts/bench.py            # calls, routing and slots
    .venv/bin/python scripts/bench.py --instructions   # also counts instructions under callgrind

Both sides of every ratio are measured in one run, in turns; medians are printed, and losses too.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("LITELLM_TELEMETRY", "False")
# Limiters made before acceleration is applied are LiteLLM's own; `make_handlers` applies it in between.
os.environ["FAST_LITELLM_ENABLED"] = "false"

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks.deployments import HELD, Choose, litellm_choices, models_of, our_choices
from benchmarks.instructions import counted, totals
from benchmarks.limiters import accelerate, make_handler

KEY = "user-" + "x" * 42
ROUNDS = 15


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def interleaved(cases: dict[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each case; every round runs every case once."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            samples[name].append(case())
    return {name: statistics.median(values) for name, values in samples.items()}


# Calls from Python


def per_call(function: Callable[[str], object] | None, calls: int = 50_000) -> Callable[[], float]:
    def run() -> float:
        keys = [KEY] * calls
        if function is None:
            start = time.perf_counter()
            for _ in keys:
                pass
            return (time.perf_counter() - start) / calls
        start = time.perf_counter()
        for key in keys:
            function(key)
        return (time.perf_counter() - start) / calls

    return run


def bench_calls() -> dict[str, float]:
    """Nanoseconds of one call with a `str`, the loop's own cost subtracted."""
    from fast_litellm import SimpleRateLimiter
    from fast_litellm._rust import noop

    cases = {
        "loop": per_call(None),
        "an empty PyO3 call": per_call(noop),
        "is_allowed, admitted": per_call(SimpleRateLimiter(60_000_000).is_allowed),
        "is_allowed, refused": per_call(SimpleRateLimiter(1).is_allowed),
        "check, refused": per_call(SimpleRateLimiter(1).check),
    }
    gc.disable()
    medians = interleaved(cases)
    gc.enable()
    loop = medians.pop("loop")
    return {name: (value - loop) * 1e9 for name, value in medians.items()}


# LiteLLM's limiter


def make_handlers(redis_port: int | None = None) -> dict[str, Any]:
    """One limiter of LiteLLM's own, one in the region, one in Redis if there is one."""
    handlers = {"LiteLLM in memory": make_handler()}
    if redis_port is not None:
        handlers["LiteLLM with Redis"] = make_handler(redis_port)
    accelerate()
    handlers["fast_litellm"] = make_handler()
    return handlers


def slot_descriptor(limit: int) -> list[dict[str, Any]]:
    return [{"key": "api_key", "value": "b" * 64, "rate_limit": {"max_parallel_requests": limit}}]


async def one_slot(handler: Any, number: int, limit: int) -> None:
    """Acquire and release one slot, as a request does."""
    slot_id = f"request-{number}"
    answer = await handler.should_rate_limit(slot_descriptor(limit), parallel_slot_id=slot_id)
    if answer["overall_code"] != "OK":
        raise SystemExit(f"refused: {answer}")
    keys = ["{api_key:" + "b" * 64 + "}:max_parallel_requests"]
    await handler._release_parallel_request_slots({"counter_keys": keys, "slot_id": slot_id})


async def bench_slots(in_flight: tuple[int, ...] = (0, 100, 1_000)) -> dict[str, dict[int, float]]:
    """Microseconds to acquire and release one slot while others are held."""
    limit = 4_096
    handlers = make_handlers()
    results: dict[str, dict[int, float]] = {name: {} for name in handlers}
    held = 0
    for target in in_flight:
        for handler in handlers.values():
            for number in range(held, target):
                await handler.should_rate_limit(
                    slot_descriptor(limit), parallel_slot_id=f"held-{number}"
                )
        held = target
        rounds: dict[str, list[float]] = {name: [] for name in handlers}
        for turn in range(ROUNDS):
            for name, handler in handlers.items():
                calls = 100 if target < 1_000 or name == "fast_litellm" else 10
                start = time.perf_counter()
                for number in range(calls):
                    await one_slot(handler, turn * calls + number, limit)
                rounds[name].append((time.perf_counter() - start) / calls)
        for name, values in rounds.items():
            results[name][target] = statistics.median(values) * 1e6
    return results


def bench_bare_slots(in_flight: tuple[int, ...] = (0, 100, 1_000)) -> dict[int, float]:
    """Microseconds of the region's acquire and release alone, without LiteLLM's code around them."""
    from fast_litellm._rust import LimiterScripts, Region

    scripts = LimiterScripts(Region.create("bench"))
    keys, held, results = ["{api_key:bare}:max_parallel_requests"], 0, {}
    for target in in_flight:
        for number in range(held, target):
            scripts.parallel_acquire(keys, [4_096, 3_600, f"held-{number}"])
        held = target
        samples = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for _ in range(2_000):
                scripts.parallel_acquire(keys, [4_096, 3_600, "mine"])
                scripts.parallel_release(keys, ["mine"])
            samples.append((time.perf_counter() - start) / 2_000)
        results[target] = statistics.median(samples) * 1e6
    return results


# Routing


def make_pickers(count: int) -> dict[str, dict[str, Callable[[], Any]]]:
    """By strategy: how LiteLLM chooses among `count` deployments that all were used, and how we do."""
    models = models_of(count)
    ours = our_choices(models)

    def on(choose: Choose, models: list[dict[str, Any]] = models) -> Callable[[], Any]:
        return lambda: choose(models)

    pickers = {
        strategy: {"LiteLLM": on(choose), "fast_litellm": on(ours[strategy])}
        for strategy, choose in litellm_choices(models).items()
    }
    # Who has no id is told apart by a hash of all its parameters; LiteLLM's router gives ids beforehand.
    nameless = [{key: model[key] for key in ("model_name", "litellm_params")} for model in models]
    pickers["simple_shuffle"]["fast_litellm, no ids"] = on(ours["simple_shuffle"], nameless)
    return pickers


def bench_routing(counts: tuple[int, ...] = (3, 30, 300)) -> dict[str, dict[str, dict[int, float]]]:
    """Microseconds of one choice, by strategy, side and number of deployments."""
    results: dict[str, dict[str, dict[int, float]]] = {}
    for count in counts:
        for strategy, cases in make_pickers(count).items():
            for name, case in cases.items():
                if case() is None:
                    raise SystemExit(f"{name} chose none by {strategy}")

            def timed(case: Callable[[], Any], calls: int) -> Callable[[], float]:
                def run() -> float:
                    start = time.perf_counter()
                    for _ in range(calls):
                        case()
                    return (time.perf_counter() - start) / calls

                return run

            few = max(3, 600 // count)
            many = 3_000 // count + 20
            timers = {
                name: timed(case, few if name == "LiteLLM" else many)
                for name, case in cases.items()
            }
            for name, median in interleaved(timers).items():
                results.setdefault(strategy, {}).setdefault(name, {})[count] = median * 1e6
        HELD.clear()
    return results


# Instructions


def pre_call(handler: Any) -> Callable[[], Awaitable[None]]:
    """The limiter's whole work before a request, for a key with a request and a token limit.

    No concurrency limit: slots would pile up here, and their cost has a table of its own.
    """
    from litellm.caching.caching import DualCache
    from litellm.proxy._types import UserAPIKeyAuth

    key = UserAPIKeyAuth(
        api_key="sk-bench",
        rpm_limit=10_000_000,
        tpm_limit=1_000_000_000,
    )
    cache = DualCache()
    message = {"role": "user", "content": "hello"}

    async def request() -> None:
        data = {"model": "gpt-4o", "messages": [message], "max_tokens": 10, "metadata": {}}
        await handler.async_pre_call_hook(
            user_api_key_dict=key, cache=cache, data=data, call_type="completion"
        )

    return request


async def count_child(name: str, redis_port: int | None, requests: int) -> None:
    """Under callgrind: run `requests`, dump, run twice as many, dump."""
    request = pre_call(make_handlers(redis_port)[name])
    for _ in range(50):
        await request()
    with counted() as dump:
        for count in (requests, 2 * requests):
            for _ in range(count):
                await request()
            dump()


def count_choices(name: str, choices: int) -> None:
    """The same of choices; `name` is strategy/side/deployments."""
    strategy, side, count = name.split("/")
    pick = make_pickers(int(count))[strategy][side]
    for _ in range(5):
        pick()
    with counted() as dump:
        for times in (choices, 2 * choices):
            for _ in range(times):
                pick()
            dump()


def count_instructions(name: str, redis_port: int | None, requests: int = 100) -> float:
    """Instructions of one request, from the difference of two runs in one process."""
    script = str(Path(__file__).resolve())
    command = [sys.executable, script, "--child", name, "--requests", str(requests)]
    if redis_port is not None:
        command += ["--redis-port", str(redis_port)]
    counts, _ = totals(command)
    return (counts[1] - counts[0]) / requests


def bench_routing_instructions(count: int = 30) -> dict[str, dict[str, float]]:
    """Instructions of one choice among `count`, by strategy and side."""
    results: dict[str, dict[str, float]] = {}
    for strategy in ("simple_shuffle", "least_busy", "latency_based", "cost_based"):
        for side in ("LiteLLM", "fast_litellm"):
            note(f"counting: {strategy}, {side}")
            counted = count_instructions(f"{strategy}/{side}/{count}", None, 20)
            results.setdefault(strategy, {})[side] = counted
    return results


def bench_instructions() -> dict[str, float]:
    from harness.proxy import RedisServer

    names = ["LiteLLM in memory", "fast_litellm"]
    results = {}
    if shutil.which("redis-server"):
        with RedisServer() as redis:
            port = int(redis.url.rsplit(":", 1)[1].split("/")[0])
            note("counting: LiteLLM with Redis (the client's side only)")
            results["LiteLLM with Redis"] = count_instructions("LiteLLM with Redis", port)
    else:
        note("no redis-server on PATH: its row is left out")
    for name in names:
        note(f"counting: {name}")
        results[name] = count_instructions(name, None)
    return results


# Report


def print_report(report: dict[str, Any]) -> None:
    calls = report["calls_ns"]
    floor = calls["an empty PyO3 call"]
    print("\none call from Python                     ns   x empty call")
    for name, value in calls.items():
        print(f"  {name:34} {value:8.1f}   {value / floor:6.2f}")
    print("\none slot acquired and released, us       0 in flight       100      1000")
    rows = {**report["slots_us"], "the region's part alone": report["bare_slots_us"]}
    for name, row in rows.items():
        print(f"  {name:34} " + " ".join(f"{row[count]:11.1f}" for count in row))
    print("\none choice among deployments, us            among 3        30       300")
    for strategy, sides in report["routing_us"].items():
        for side, row in sides.items():
            print(
                f"  {strategy + ', ' + side:34} "
                + " ".join(f"{value:11.2f}" for value in row.values())
            )
    if "routing_instructions" in report:
        print("\none choice among 30 deployments, instructions")
        for strategy, sides in report["routing_instructions"].items():
            for side, value in sides.items():
                ratio = value / sides["LiteLLM"]
                print(f"  {strategy + ', ' + side:34} {value:12,.0f}   {ratio:5.2f} of LiteLLM")
    if "instructions" in report:
        print("\nthe limiter's pre-call work (rpm and tpm), instructions per request")
        base = report["instructions"]["LiteLLM in memory"]
        for name, value in sorted(report["instructions"].items(), key=lambda item: item[1]):
            print(f"  {name:34} {value:12,.0f}   {value / base:5.2f} of LiteLLM in memory")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--instructions", action="store_true", help="count under callgrind (minutes)"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=int, default=100, help=argparse.SUPPRESS)
    parser.add_argument("--redis-port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child and "/" in arguments.child:
        count_choices(arguments.child, arguments.requests)
        return 0
    if arguments.child:
        asyncio.run(count_child(arguments.child, arguments.redis_port, arguments.requests))
        return 0
    note("calls from Python")
    report: dict[str, Any] = {"calls_ns": bench_calls()}
    note("routing")
    report["routing_us"] = bench_routing()
    note("slots")
    report["bare_slots_us"] = bench_bare_slots()
    report["slots_us"] = asyncio.run(bench_slots())
    if arguments.instructions:
        report["routing_instructions"] = bench_routing_instructions()
        report["instructions"] = bench_instructions()
    print_report(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
