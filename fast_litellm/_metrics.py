"""What the region counts and measures, as metric families: the one source of every Prometheus export.

All numbers are the region's, so every worker gives the same ones: they must not be added up over workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fast_litellm import _native
from fast_litellm._feature_config import NAMES
from fast_litellm._feature_reports import breaker_is_open, name_of
from fast_litellm._histogram import Series
from fast_litellm._monitor import all_series, monitor

PREFIX = "fast_litellm_"


class Sample(NamedTuple):
    """One number; `suffix` is what its name has more than its family's."""

    suffix: str
    labels: dict[str, str]
    value: float


class Family(NamedTuple):
    """One metric with its samples. `kind` is "counter", "gauge" or "histogram".

    The name is without `_total`, which the samples of counters have.
    """

    name: str
    kind: str
    help: str
    samples: list[Sample]


#: The region's counters, with what their families are called and say.
_COUNTERS = {
    "window_charged": "Charges to anchored windows that were admitted.",
    "window_denied": "Charges to anchored windows that were refused.",
    "window_refunded": "Charges that were taken back.",
    "lease_acquired": "Concurrency slots acquired.",
    "lease_released": "Concurrency slots released by their holders.",
    "lease_denied": "Concurrency slots refused because all were held.",
    "lease_reaped": "Concurrency slots freed because their holder was dead.",
    "lease_expired": "Concurrency slots freed because they outlived their time to live.",
    "table_full": "Operations that found no room in the region.",
    "contended": "Operations that ran out of tries.",
    "corrected": "Impossible values met in the region and corrected.",
    "fallbacks": "Operations done without the region.",
    "registrations": "Registrations of processes.",
    "workers_reaped": "Rows of dead workers that were reaped.",
    "admitted": "Admissions over several limits that were granted.",
    "refused": "Admissions over several limits that were refused.",
    "refunds_dropped": "Refunds that came too late to be given.",
    "overflow_denied": "Keys refused because there was no room for them.",
    "overflow_shared": "Operations on keys without room that shared a bucket with others.",
    "overflow_local": "Operations on keys without room that were decided per worker.",
    "keys_reclaimed": "Idle keys whose records were given up.",
    "chunks_reclaimed": "Idle chunks of concurrency slots that were given up.",
    "misplaced": "Charges that met a record which changed hands, and were made again.",
    "events": "Events recorded.",
    "cooldowns": "Cooldowns of deployments begun.",
    "uncounted": "Calls sent to deployments without being counted in flight.",
}

#: Of a deployment: name, kind, help, field of its report, and units in one of that field.
_OF_DEPLOYMENTS = (
    ("in_flight", "gauge", "Calls in flight to a deployment.", "in_flight", 1.0),
    ("cooldown_seconds", "gauge", "Time until a deployment's cooldown ends.", "cooldown_ms", 1e-3),
    ("successes", "counter", "Successful calls to a deployment.", "successes_total", 1.0),
    ("failures", "counter", "Failed calls to a deployment.", "failures_total", 1.0),
    ("failures_in_a_row", "gauge", "Failures since the last success.", "failures_in_a_row", 1.0),
    ("latency_seconds", "gauge", "Average latency of a deployment.", "latency_us", 1e-6),
    (
        "first_token_seconds",
        "gauge",
        "Average time to the first token of a deployment.",
        "first_token_us",
        1e-6,
    ),
)


def families(component: str | None = None) -> list[Family]:
    """Everything; or, of one component, its operations only.

    Raises:
        TypeError: `component` is neither a str nor None.
        RegionError: no region exists and none can be created.
    """
    operations = list(of_operations(all_series(component)))
    if component is not None:
        return operations
    overview: dict[str, Any] = json.loads(monitor().overview())
    return [*of_region(overview), *of_limiters(_limiter_stats()), *operations]


def _limiter_stats() -> Mapping[str, int]:
    region = _native.default_region()
    if region is not None:
        return region.limiter_stats()
    from fast_litellm._fallback import limiter_stats

    return limiter_stats()


def of_operations(measured: Iterable[Series]) -> Iterator[Family]:
    """What was measured of operations."""
    series = list(measured)
    labels = [{"component": each.component, "operation": each.operation} for each in series]
    yield Family(
        PREFIX + "operation_duration_seconds",
        "histogram",
        "Time that operations took. Of fast_litellm's own ones only a part is timed.",
        [
            sample
            for each, of in zip(series, labels, strict=True)
            for sample in _histogram(each, of)
        ],
    )

    def each_of(name: str, kind: str, text: str, values: Iterable[float]) -> Family:
        suffix = "_total" if kind == "counter" else ""
        samples = [Sample(suffix, of, value) for of, value in zip(labels, values, strict=True)]
        return Family(f"{PREFIX}operation_{name}", kind, text, samples)

    longest = (each.max_ns / 1e9 for each in series)
    yield each_of("duration_max_seconds", "gauge", "The longest operation.", longest)
    errors = (each.errors for each in series)
    yield each_of("errors", "counter", "Timed operations that failed.", errors)
    given = (each.input_bytes for each in series)
    yield each_of("input_bytes", "counter", "Bytes that operations were given.", given)
    gave = (each.output_bytes for each in series)
    yield each_of("output_bytes", "counter", "Bytes that operations gave.", gave)


def _histogram(series: Series, labels: dict[str, str]) -> Iterator[Sample]:
    for upper_ns, total in series.cumulative():
        yield Sample("_bucket", {**labels, "le": repr(upper_ns / 1e9)}, total)
    yield Sample("_bucket", {**labels, "le": "+Inf"}, series.calls)
    yield Sample("_sum", labels, series.sum_ns / 1e9)
    yield Sample("_count", labels, series.calls)


def of_limiters(stats: Mapping[str, int]) -> Iterator[Family]:
    """What the limiters for programs of one's own have decided."""
    decided = [
        Sample("_total", {"result": result}, stats[f"{result}_count"])
        for result in ("allowed", "denied")
    ]
    text = "Checks of SimpleRateLimiter and check_rate_limit."
    yield Family(PREFIX + "limiter_checks", "counter", text, decided)
    known = [Sample("", {}, stats["active_keys"])]
    yield Family(PREFIX + "limiter_keys", "gauge", "Keys of SimpleRateLimiter.", known)


def of_region(overview: Mapping[str, Any]) -> Iterator[Family]:
    """What the region counts; nothing without one."""
    if not overview:
        return
    yield from _of_its_size(overview)
    yield from _of_features(overview["features"])
    yield from _of_deployments(overview["deployments"])
    for counter, count in overview["stats"].items():
        text = _COUNTERS.get(counter, f"The region's counter {counter}.")
        yield Family(PREFIX + counter, "counter", text, [Sample("_total", {}, count)])


def _of_its_size(overview: Mapping[str, Any]) -> Iterator[Family]:
    header, states = overview["header"], [worker["alive"] for worker in overview["workers"]]
    workers = [
        Sample("", {"state": state}, states.count(state)) for state in ("alive", "dead", "unknown")
    ]
    yield Family(
        PREFIX + "workers",
        "gauge",
        "Processes that are registered, and the one that made the region.",
        workers,
    )
    for name, value, text in (
        ("leases_held", overview["leases_held"], "Concurrency slots that are held."),
        ("keys", header["keys"], "Keys in the region."),
        ("keys_capacity", header["key_capacity"], "Keys that the region has room for."),
        ("lease_chunks", header["chunks"], "Chunks of 32 concurrency slots in use."),
        ("lease_chunks_capacity", header["chunk_capacity"], "Chunks that there is room for."),
        ("region_bytes", header["size"], "Size of the region."),
        ("region_age_seconds", header["age_s"], "Time since the region was created."),
    ):
        yield Family(PREFIX + name, "gauge", text, [Sample("", {}, value)])


def _of_features(reports: Iterable[Mapping[str, Any]]) -> Iterator[Family]:
    # Only those that ever had an error or whose switch was moved are reported.
    found = {name_of(report): report for report in reports}
    quiet = {"breaker": "closed", "errors": 0, "errors_total": 0}
    features = {
        name: found.get(name, quiet) for name in (*NAMES, *sorted(found.keys() - set(NAMES)))
    }

    def each_of(name: str, kind: str, text: str, values: Iterable[float]) -> Family:
        suffix = "_total" if kind == "counter" else ""
        samples = [
            Sample(suffix, {"feature": feature}, value)
            for feature, value in zip(features, values, strict=True)
        ]
        return Family(f"{PREFIX}feature_{name}", kind, text, samples)

    total = (report["errors_total"] for report in features.values())
    yield each_of("errors", "counter", "Errors of a feature.", total)
    recent = (report["errors"] for report in features.values())
    yield each_of("recent_errors", "gauge", "Errors that its breaker remembers.", recent)
    is_open = (int(breaker_is_open(report)) for report in features.values())
    yield each_of("breaker_open", "gauge", "1 = switched off because of its errors.", is_open)


def _of_deployments(reports: Iterable[Mapping[str, Any]]) -> Iterator[Family]:
    named = list(_with_names_of_their_own(reports))
    for name, kind, text, field, unit in _OF_DEPLOYMENTS:
        samples = [
            Sample("_total" if kind == "counter" else "", {"deployment": own}, report[field] * unit)
            for own, report in named
            if field in report
        ]
        yield Family(f"{PREFIX}deployment_{name}", kind, text, samples)


def _with_names_of_their_own(
    reports: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Reports by name, where names that redaction has made alike are told apart by a number."""
    reports = list(reports)
    # A name may look like one with a number.
    taken = {str(report["deployment"]) for report in reports}
    seen: dict[str, int] = {}
    for report in reports:
        name = own = str(report["deployment"])
        number = seen.get(name, 0) + 1
        while number > 1 and (own := f"{name}#{number}") in taken:
            number += 1
        seen[name] = number
        yield own, report
