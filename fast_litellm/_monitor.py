"""The performance monitor: how long operations took, and how they ended, over all workers.

Durations are kept in histograms, so a quantile is at most 25 % too large and never too small; counts,
averages, totals and the maximum are exact. Of fast_litellm's own operations only a part is timed
(`FAST_LITELLM_PERFORMANCE_SAMPLING`), and only that part is counted; what `record_performance` is told
counts in full.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fast_litellm import _native
from fast_litellm._histogram import Series, merged
from fast_litellm._log import logger

#: Most bytes of `component.operation`: what a name in the region has room for.
_NAME_BYTES = 88
#: Names remembered with the numbers of their series.
_MAX_KNOWN = 1_000
#: A day: longer durations are surely not in milliseconds.
_MAX_MS = 86_400_000
_MAX_BYTES = 2**63
_PUNCTUATION = "_-:/"

_monitor: _native.Monitor | None = None
#: Numbers of series by component and operation.
_known: dict[tuple[str, str], int] = {}
_full_is_logged = False


def monitor() -> _native.Monitor:
    """The monitor of this process's region; of the process alone where no region can be had."""
    global _monitor
    if _monitor is None:
        _monitor = _make()
    return _monitor


def _make() -> _native.Monitor:
    if _native.RUST_ACCELERATION_AVAILABLE:
        from fast_litellm._region import process_region

        try:
            return _native.Monitor(process_region())
        except _native.RegionError as error:
            logger().error("measurements are NOT shared between workers: %s", error)
    from fast_litellm import _fallback_monitor

    alone: Any = _fallback_monitor.process_monitor()
    return alone  # type: ignore[no-any-return]


def record_performance(
    component: str,
    operation: str,
    duration_ms: float,
    success: bool | None = True,
    input_size: int | None = None,
    output_size: int | None = None,
) -> None:
    """Record how long an operation took.

    There is room for 64 pairs of component and operation, and they are never given up: put nothing into
    their names that varies. A pair without room is counted, logged once, and otherwise ignored.

    Args:
        component: ASCII letters, digits, `_`, `-`, `:` and `/`; shown to whoever looks at the region.
        operation: the same, and `.`. Together with the component at most 87 characters.
        duration_ms: milliseconds, 0 to 86,400,000 (a day); kept to the nanosecond.
        success: False = it failed. None, an outcome that is not known, counts as a success.
        input_size: bytes it was given; they are summed up.
        output_size: bytes it gave.

    Raises:
        TypeError: a value of another type than described.
        ValueError: a name, a duration or a size that cannot be.
    """
    ns = _nanoseconds(duration_ms)
    input_bytes = 0 if input_size is None else _bytes("input_size", input_size)
    output_bytes = 0 if output_size is None else _bytes("output_size", output_size)
    if success is not None and not isinstance(success, bool):
        raise TypeError(f"success must be a bool or None, not {type(success).__name__}")
    try:
        series = _known.get((component, operation))
    except TypeError:
        series = None
    if series is None:
        series = _series_of(component, operation)
    if series is not None:
        monitor().record(series, ns, success is False, input_bytes, output_bytes)


def _series_of(component: str, operation: str) -> int | None:
    """Find or make a series; None = there is no room for it."""
    global _full_is_logged
    name = f"{_name('component', component, '')}.{_name('operation', operation, '.')}"
    if len(name) > _NAME_BYTES:
        raise ValueError(
            f"component and operation have {len(name) - 1} characters: use at most {_NAME_BYTES - 1}"
        )
    series = monitor().series(name)
    if series is None:
        if not _full_is_logged:
            _full_is_logged = True
            logger().error(
                "%s is NOT measured: there is no room for another pair of component and operation; "
                "use names that do not vary",
                name,
            )
        return None
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    _known[component, operation] = series
    return series


def _name(what: str, name: object, more: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, not {type(name).__name__}")
    if not name:
        raise ValueError(f"{what} is empty")
    if len(name) > _NAME_BYTES:
        raise ValueError(f"{what} has {len(name)} characters: use at most {_NAME_BYTES - 1}")
    for character in name:
        if not (character.isascii() and (character.isalnum() or character in _PUNCTUATION + more)):
            allowed = "ASCII letters, digits, " + ", ".join(_PUNCTUATION + more)
            raise ValueError(f"{what}={name!r} has a {character!r}: use {allowed}")
    return str(name)


def _nanoseconds(duration_ms: object) -> int:
    if isinstance(duration_ms, (bool, str, bytes, bytearray)) or not hasattr(
        duration_ms, "__float__"
    ):
        raise TypeError(f"duration_ms must be a number, not {type(duration_ms).__name__}")
    try:
        ms = float(duration_ms)
    except OverflowError:
        ms = float("inf")
    # Not a number is not in any range.
    if not 0 <= ms <= _MAX_MS:
        raise ValueError(f"duration_ms={duration_ms}: use milliseconds from 0 to {_MAX_MS:,}")
    return round(ms * 1e6)


def _bytes(what: str, size: object) -> int:
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{what} must be an int or None, not {type(size).__name__}")
    if not 0 <= size < _MAX_BYTES:
        raise ValueError(f"{what}={size}: use bytes from 0 to 2**63 - 1")
    return size


def all_series(component: str | None = None) -> list[Series]:
    """All series that have measured something, in order of their names; of one component, or of all.

    Raises:
        TypeError: `component` is neither a str nor None.
    """
    if component is not None and not isinstance(component, str):
        raise TypeError(f"component must be a str or None, not {type(component).__name__}")
    measured = []
    for name, *rest in monitor().snapshot():
        owner, _, operation = name.partition(".")
        series = Series._make((owner, operation, *rest))
        if component in (None, owner) and (series.errors or any(series.counts)):
            measured.append(series)
    return sorted(measured, key=lambda each: (each.component, each.operation))


def by_component(measured: Iterable[Series]) -> dict[str, list[Series]]:
    """The series of each component."""
    components: dict[str, list[Series]] = {}
    for series in measured:
        components.setdefault(series.component, []).append(series)
    return components


def get_performance_stats(component: str | None = None) -> dict[str, Any]:
    """Sum up what was measured, over all workers, since the region was created.

    Args:
        component: only this one. None = all.

    Returns:
        A dict by component; without measurements it is empty. Each has, for all its operations together:

        * `count` and `total_calls` (int): operations measured;
        * `errors` and `error_count` (int): those that failed; `success_rate` (float, 0 to 1);
        * `avg_ms` and `average_duration_ms`, `max_ms`, `total_ms` (float): exact;
        * `p50_ms`, `p95_ms`, `p99_ms` (float): at most 25 % too large, never too small;
        * `throughput_ops` (float): operations in a second of the time spent in them, one after the other;
        * `input_bytes`, `output_bytes` (int): as far as they were told;

        and `operations`, a dict with the same of each operation. What nothing was measured of is None.

    Raises:
        TypeError: `component` is neither a str nor None.
    """
    return {
        name: {
            **numbers(merged(name, series)),
            "operations": {each.operation: numbers(each) for each in series},
        }
        for name, series in by_component(all_series(component)).items()
    }


def numbers(series: Series) -> dict[str, Any]:
    """What a series says, in milliseconds and bytes."""
    calls, mean = series.calls, _ms(series.mean_ns)
    return {
        "count": calls,
        "total_calls": calls,
        "errors": series.errors,
        "error_count": series.errors,
        "success_rate": max(calls - series.errors, 0) / calls if calls else None,
        "avg_ms": mean,
        "average_duration_ms": mean,
        "max_ms": _ms(series.max_ns if calls else None),
        "p50_ms": _ms(series.quantile_ns(0.5)),
        "p95_ms": _ms(series.quantile_ns(0.95)),
        "p99_ms": _ms(series.quantile_ns(0.99)),
        "total_ms": series.sum_ns / 1e6,
        "throughput_ops": calls * 1e9 / series.sum_ns if series.sum_ns else None,
        "input_bytes": series.input_bytes,
        "output_bytes": series.output_bytes,
    }


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / 1e6
