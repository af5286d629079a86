"""What was measured, for other programs."""

from __future__ import annotations

from typing import Any

from fast_litellm._monitor import get_performance_stats

_FORMATS = ("json", "csv", "prometheus")
#: What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS = (
    "count",
    "errors",
    "success_rate",
    "avg_ms",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "max_ms",
    "total_ms",
    "throughput_ops",
    "input_bytes",
    "output_bytes",
)


def export_performance_data(component: str | None = None, format: str | None = "json") -> str:
    """Export what was measured, over all workers.

    Args:
        component: only this one. None = all.
        format: "json" (what `get_performance_stats` returns); "csv" (a line for each operation, after
            one with the names of the columns; what nothing was measured of is empty, and a name that a
            spreadsheet would take for a formula begins with `'`); or "prometheus" (text format 0.0.4:
            histograms in seconds, and for all components also what the region counts). None = "json".

    Raises:
        ValueError: another format.
        TypeError: `component` is neither a str nor None.
    """
    if format is None or format == "json":
        return _json(get_performance_stats(component))
    if format == "csv":
        return _csv(get_performance_stats(component))
    if format == "prometheus":
        from fast_litellm import _metrics, _prometheus

        return _prometheus.text(_metrics.families(component))
    raise ValueError(f"format={format!r} is unknown: use one of {', '.join(_FORMATS)}")


def _json(stats: dict[str, Any]) -> str:
    import json

    return json.dumps(stats, indent=2, allow_nan=False)


def _csv(stats: dict[str, Any]) -> str:
    import csv
    import io

    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(("component", "operation", *_COLUMNS))
    for component, numbers in stats.items():
        for operation, found in numbers["operations"].items():
            names = (_cell(component), _cell(operation))
            writer.writerow((*names, *(found[column] for column in _COLUMNS)))
    return lines.getvalue()


def _cell(name: str) -> str:
    return "'" + name if name.startswith(_FORMULA) else name
