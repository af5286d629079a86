"""What fast_litellm's own wrapping costs, in instructions: on, off, and the bare native call.

One process goes through all states of the package: LiteLLM takes long to load under callgrind.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.contenders import AbsentError
from benchmarks.instructions import counted, totals
from benchmarks.limiters import accelerate, make_handler, request_descriptor

TITLE = "Overhead: instructions of one call"

#: Calls of the first counted part; the second one has twice as many, and the difference is what counts.
CALLS = 100

UNTOUCHED = "LiteLLM's limiter, fast_litellm never imported"
DISABLED = "LiteLLM's limiter, FAST_LITELLM_ENABLED=false"
REMOVED = "LiteLLM's limiter, applied and removed again"
SWITCHED_OFF = "LiteLLM's limiter, FAST_LITELLM_RUST_RATE_LIMITING=false"
APPLIED = "LiteLLM's limiter, fast_litellm applied"
NATIVE = "what that asks of the region, bare"
EMPTY = "an empty native call"
CHECK = "SimpleRateLimiter.check, native"
MODULE_CHECK = "check_rate_limit, the module's function"
POOL = "SimpleConnectionPool, taken and given back, native"
MODULE_POOL = "get_connection and return_connection, the module's"

#: What a row is to be compared with.
AGAINST = {
    DISABLED: UNTOUCHED,
    REMOVED: UNTOUCHED,
    SWITCHED_OFF: UNTOUCHED,
    APPLIED: UNTOUCHED,
    NATIVE: APPLIED,
    CHECK: EMPTY,
    MODULE_CHECK: CHECK,
    MODULE_POOL: POOL,
}
#: Rows that should not be dearer than what they are compared with; in others the difference is the work.
FREE = (DISABLED, REMOVED, SWITCHED_OFF, APPLIED)
#: What counts differ by without a reason, mostly because of where Python's memory lies.
NOISE = 0.005

_KEY = "user-" + "x" * 42


def measure(command: list[str]) -> dict[str, Any]:
    """Count in a process that `command` starts, which calls `count_all`.

    Returns:
        A section of the report.
    """
    # Hashes of texts, and with them lookups, are the same each time.
    counts, output = totals(command, {"PYTHONHASHSEED": "0"})
    names: list[list[str | None]] = json.loads(output.splitlines()[-1])
    rows = []
    parts = iter(counts)
    found: dict[str, float] = {}
    for name, absent in names:
        row: dict[str, Any] = {"case": name, "absent": absent or "", "instructions": None}
        row["against"] = AGAINST.get(str(name), "")
        if absent is None:
            _, first, second = next(parts), next(parts), next(parts)
            found[str(name)] = row["instructions"] = (second - first) / CALLS
        base, mine = found.get(row["against"]), row["instructions"]
        row["ratio"] = mine / base if base and mine is not None else None
        row["extra"] = mine - base if base and mine is not None else None
        row["we_lose"] = name in FREE and row["ratio"] is not None and row["ratio"] > 1 + NOISE
        rows.append(row)
    return {"title": TITLE, "unit": "instructions", "rows": rows}


def count_all() -> None:
    """Under callgrind: count every row, and say on standard output which there were."""
    names = []
    for name, make in _rows():
        try:
            call = make()
            for _ in range(50):
                call()
        except AbsentError as absent:
            names.append((name, str(absent)))
            continue
        with counted() as dump:
            dump()
            for times in (CALLS, 2 * CALLS):
                for _ in range(times):
                    call()
                dump()
        names.append((name, None))
        print(name, file=sys.stderr, flush=True)
    print(json.dumps(names))


def _rows() -> Iterator[tuple[str, Callable[[], Callable[[], object]]]]:
    """The rows; each is made in the state that the ones before have left."""
    yield UNTOUCHED, _check_of_litellm
    yield DISABLED, _disabled
    yield APPLIED, _applied
    yield NATIVE, _native
    yield REMOVED, _removed
    yield SWITCHED_OFF, _switched_off
    yield EMPTY, _empty
    yield CHECK, _check
    yield MODULE_CHECK, _module_check
    yield POOL, _pool
    yield MODULE_POOL, _module_pool


def _check_of_litellm() -> Callable[[], object]:
    decide = make_handler().should_rate_limit
    descriptors = request_descriptor(_KEY, 60_000_000)
    loop = asyncio.new_event_loop()

    async def one() -> Any:
        return await decide(descriptors)

    return lambda: loop.run_until_complete(one())


def _disabled() -> Callable[[], object]:
    os.environ["FAST_LITELLM_ENABLED"] = "false"
    import fast_litellm  # noqa: F401  # the import is what is to be free

    return _check_of_litellm()


def _applied() -> Callable[[], object]:
    accelerate()
    return _check_of_litellm()


def _native() -> Callable[[], object]:
    """Catch what the limiter asks, to ask it again without the limiter."""
    from fast_litellm._native import LimiterScripts, default_region

    handler = make_handler()
    script = handler.batch_rate_limiter_script
    caught: list[Any] = []

    async def catch(keys: Any, args: Any = (), client: Any = None) -> Any:
        caught[:] = [list(keys), list(args)]
        return await script(keys, args, client)

    handler.batch_rate_limiter_script = catch
    asyncio.run(handler.should_rate_limit(request_descriptor(_KEY, 60_000_000)))
    if not caught:
        raise AbsentError("not there: this LiteLLM asks nothing of the region for a request limit")
    region = default_region()
    assert region is not None
    ask = LimiterScripts(region).batch_rate_limiter
    keys, arguments = caught
    return lambda: ask(keys, arguments)


def _removed() -> Callable[[], object]:
    import fast_litellm

    fast_litellm.remove_acceleration()
    return _check_of_litellm()


def _switched_off() -> Callable[[], object]:
    os.environ["FAST_LITELLM_RUST_RATE_LIMITING"] = "false"
    try:
        accelerate()
    except RuntimeError:
        return _check_of_litellm()
    raise AbsentError("not there: the switch does not act once the package is imported")


def _empty() -> Callable[[], object]:
    from fast_litellm._rust import noop

    return lambda: noop(_KEY)


def _check() -> Callable[[], object]:
    from fast_litellm import SimpleRateLimiter

    check = SimpleRateLimiter(60_000_000).check
    return lambda: check(_KEY)


def _module_check() -> Callable[[], object]:
    from fast_litellm import check_rate_limit

    return lambda: check_rate_limit(_KEY)


def _pool() -> Callable[[], object]:
    import fast_litellm

    if not hasattr(fast_litellm, "SimpleConnectionPool"):
        raise AbsentError("not there: this build has no SimpleConnectionPool")
    pool = fast_litellm.SimpleConnectionPool()
    return lambda: pool.return_connection(pool.get_connection("https://one.example.com"))


def _module_pool() -> Callable[[], object]:
    import fast_litellm

    if not hasattr(fast_litellm, "get_connection"):
        raise AbsentError("not there: this build has no get_connection")
    take, give = fast_litellm.get_connection, fast_litellm.return_connection
    return lambda: give(take("https://one.example.com"))
