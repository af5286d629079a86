"""What follows from the measurements, each with the numbers that it follows from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fast_litellm._comparison import compared
from fast_litellm._feature_reports import breaker_is_open, name_of
from fast_litellm._histogram import Series
from fast_litellm._monitor import all_series, by_component, monitor

#: Operations below which a part of them, or their slowest hundredth, says nothing.
_MIN_CALLS = 100
_MAX_ERROR_RATE = 0.05
#: So many times the median is a long way; below so many nanoseconds it is the machine's.
_TAIL, _TAIL_NS = 10, 1_000_000
_KEYS = "raise FAST_LITELLM_SHM_KEYS and restart"

#: Counters of the region that should be zero: what it means if they are not.
_COUNTERS = {
    "table_full": f"operations found no room in the region: {_KEYS}, or use fewer names",
    "overflow_denied": f"operations on keys without room were refused: {_KEYS}",
    "overflow_shared": f"operations on keys without room shared one limit with others: {_KEYS}",
    "overflow_local": f"operations on keys without room were limited per worker only: {_KEYS}",
    "fallbacks": "operations were done without the region, per worker only: the log says why",
    "contended": "operations ran out of tries",
    "corrected": "impossible values were met in the region: run fl-shm inspect",
    "uncounted": "calls were sent to deployments without being counted in flight: "
    "raise FAST_LITELLM_SHM_LEASE_CHUNKS and restart",
    "pool_refused": "connections were refused because a pool was full: raise its limits",
}


def get_recommendations() -> list[dict[str, Any]]:
    """Say what should be looked at, judging by what was measured over all workers.

    Returns:
        A list of dicts, always in the same order; empty when there is nothing to say. Each has
        `component`, `operation` (str, or None: all of it), `kind`, `message` (str) and `measured`
        (dict: the numbers it follows from). Kinds:

        * "use_python": of the components `rust_X` and `python_X` the second is faster;
        * "errors": more than 5 % of at least 100 operations failed;
        * "slow_tail": the 99th percentile is above 1 ms and above ten times the median, of at least 100;
        * "breaker_open": a feature is switched off for all workers because of its errors;
        * "feature_errors": a feature had errors, but is on;
        * the name of a counter of the region that should be zero and is not, such as "table_full",
          "overflow_denied" or "fallbacks"; `fl-shm inspect stats` shows them.
    """
    import json

    overview: dict[str, Any] = json.loads(monitor().overview())
    return [*of_series(all_series()), *of_region(overview)]


def of_series(measured: Iterable[Series]) -> Iterator[dict[str, Any]]:
    """What follows from durations."""
    components = by_component(measured)
    for component, series in components.items():
        python = components.get("python_" + component.removeprefix("rust_"))
        if component.startswith("rust_") and python is not None:
            found = compared(series, python)
            if found["recommendation"] == "use_python":
                message = (
                    f"{python[0].component} takes {found['python_avg_ms']:.6g} ms where "
                    f"{component} takes {found['rust_avg_ms']:.6g} ms: consider switching its feature off"
                )
                yield _item(component, None, "use_python", message, found)
    for each in (each for series in components.values() for each in series):
        calls = each.calls
        if calls < _MIN_CALLS:
            continue
        if each.errors > _MAX_ERROR_RATE * calls:
            rate = min(each.errors / calls, 1.0)
            measured_errors = {"count": calls, "errors": each.errors, "error_rate": rate}
            message = f"{rate:.1%} of {calls} operations failed"
            yield _item(each.component, each.operation, "errors", message, measured_errors)
        p50, p99 = each.quantile_ns(0.5) or 0, each.quantile_ns(0.99) or 0
        if p99 > max(_TAIL * p50, _TAIL_NS):
            tail = {"count": calls, "p50_ms": p50 / 1e6, "p99_ms": p99 / 1e6}
            message = f"half take at most {p50 / 1e6:.6g} ms, one in a hundred {p99 / 1e6:.6g} ms"
            yield _item(each.component, each.operation, "slow_tail", message, tail)


def of_region(overview: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What follows from the region's own counters."""
    for feature in overview.get("features", ()):
        name, errors = name_of(feature), feature["errors_total"]
        numbers = {"errors": feature["errors"], "errors_total": errors, "last_s": feature["last_s"]}
        if breaker_is_open(feature):
            message = (
                f"{name} is switched off for all workers after {feature['errors']} errors: the log has "
                f'them; reset_errors("{name}") tries it again at once'
            )
            yield _item(name, None, "breaker_open", message, numbers)
        elif errors:
            message = f"{name} had {errors} errors since the region was created: the log has them"
            yield _item(name, None, "feature_errors", message, numbers)
    stats = overview.get("stats", {})
    for counter, meaning in _COUNTERS.items():
        count = stats.get(counter, 0)
        if count:
            yield _item("region", None, counter, f"{count} {meaning}", {counter: count})


def _item(
    component: str, operation: str | None, kind: str, message: str, measured: dict[str, Any]
) -> dict[str, Any]:
    return {
        "component": component,
        "operation": operation,
        "kind": kind,
        "message": message,
        "measured": measured,
    }
