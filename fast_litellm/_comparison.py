"""Comparing two implementations by what was measured of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fast_litellm._histogram import Series
from fast_litellm._monitor import all_series

#: Measurements of each side below which nothing is recommended.
MIN_SAMPLES = 30
#: Differences below this part of the slower one are none.
_SAME = 0.05


def compare_implementations(rust_component: str, python_component: str) -> dict[str, Any]:
    """Compare the average durations of two components, over all workers.

    Like is compared with like: only operations that both have count, and each counts for both sides as
    often as it was measured on the two together, so that a side that did more of the slow operations is
    not the slower one for it. Operations with fewer than 30 measurements of a side are left out if
    there are others. If they have no operation in common, all that was measured of either is compared.

    Returns:
        `rust_avg_ms`, `python_avg_ms` (float, or None: nothing was measured), `speedup` (float: how many
        times as long Python takes, or None), `recommendation` (str: "use_rust"; "use_python";
        "no_difference", which is less than 5 %; or "insufficient_data", with fewer than 30 measurements
        of a side), `rust_count`, `python_count` (int: measurements that this rests on), `min_samples`
        (int: 30), and `operations` (list of str: those that were compared; empty = they have none in
        common).

    Raises:
        TypeError: a name is not a str.
    """
    for what, name in (("rust_component", rust_component), ("python_component", python_component)):
        if not isinstance(name, str):
            raise TypeError(f"{what} must be a str, not {type(name).__name__}")
    return compared(all_series(rust_component), all_series(python_component))


def compared(rust: Iterable[Series], python: Iterable[Series]) -> dict[str, Any]:
    """Compare the series of two components."""
    ours, theirs = _by_operation(rust), _by_operation(python)
    common = sorted(ours.keys() & theirs.keys())
    enough = [name for name in common if min(ours[name].calls, theirs[name].calls) >= MIN_SAMPLES]
    common = enough or common
    if common:
        weights = {name: ours[name].calls + theirs[name].calls for name in common}
        ours = {name: ours[name] for name in common}
        theirs = {name: theirs[name] for name in common}
        rust_ms, python_ms = _average(ours, weights), _average(theirs, weights)
    else:
        rust_ms = _average(ours, {name: each.calls for name, each in ours.items()})
        python_ms = _average(theirs, {name: each.calls for name, each in theirs.items()})
    rust_count = sum(each.calls for each in ours.values())
    python_count = sum(each.calls for each in theirs.values())
    speedup = python_ms / rust_ms if rust_ms and python_ms is not None else None
    if rust_ms is None or python_ms is None or min(rust_count, python_count) < MIN_SAMPLES:
        recommendation = "insufficient_data"
    elif abs(rust_ms - python_ms) <= _SAME * max(rust_ms, python_ms):
        recommendation = "no_difference"
    else:
        recommendation = "use_rust" if rust_ms < python_ms else "use_python"
    return {
        "rust_avg_ms": rust_ms,
        "python_avg_ms": python_ms,
        "speedup": speedup,
        "recommendation": recommendation,
        "rust_count": rust_count,
        "python_count": python_count,
        "min_samples": MIN_SAMPLES,
        "operations": common,
    }


def _by_operation(series: Iterable[Series]) -> dict[str, Series]:
    return {each.operation: each for each in series if each.calls}


def _average(series: dict[str, Series], weights: dict[str, int]) -> float | None:
    weight = sum(weights.values())
    total = sum((series[name].mean_ns or 0.0) * weights[name] for name in series)
    return total / weight / 1e6 if weight else None
