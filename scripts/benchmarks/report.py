"""Tables for people, of a report as it is written to JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

#: What contenders are called.
LABELS = {
    "ours": "fast_litellm",
    "ours_fitted": "fast_litellm, room as needed",
    "published": "published fast-litellm",
    "litellm_ours": "LiteLLM with fast_litellm",
    "litellm": "LiteLLM",
    "litellm_roomy": "LiteLLM, memory for all keys",
    "python": "Python, lean",
    "python_reference": "Python, reference's kind",
}

#: What the reference promises: text, times, section, case. Its own baseline is `python_reference`.
CLAIMS = (
    ("connection pool", 3.2, "pool", "10 endpoints"),
    ("rate limiting", 1.6, "rate", "1,000 keys in turn, admitted"),
    ("token counting, large texts", 1.7, "tokens", "20,000 characters"),
    ("routing", 0.4, "routing", "simple_shuffle, 30"),
    ("memory, 1,000 keys", 42.0, "memory", "1,000 keys"),
    ("the same by tracemalloc", 42.0, "memory", "1,000 keys 50 times, as tracemalloc sees it"),
)

LOST = "we lose"
WRONG = "WRONG"


def text(report: dict[str, Any]) -> str:
    """The whole report."""
    return "\n".join([*_head(report), *_sections(report), *_claims(report), *_losses(report)])


def _head(report: dict[str, Any]) -> Iterable[str]:
    machine = report["machine"]
    yield (
        f"{machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}"
    )
    before, after = (
        " ".join(f"{value:.2f}" for value in machine[when])
        for when in ("load_before", "load_after")
    )
    yield f"load before {before}, after {after}; {report['iterations']} iterations"
    for name, found in report["contenders"].items():
        yield f"  {LABELS[name]}: {found['version'] or found['absent']}"


def _sections(report: dict[str, Any]) -> Iterable[str]:
    for section in report["sections"].values():
        yield ""
        yield section["title"]
        if section.get("absent"):
            yield f"  {section['absent']}"
        elif section["unit"] == "instructions":
            yield from _aligned(_instruction_rows(section["rows"]), numbers=(1, 2, 3))
        else:
            yield from _aligned(_rows(section), numbers=(2, 3, 4, 5))
            if any(row["contender"] == "litellm_ours" for row in section["rows"]):
                yield "  LiteLLM's lines are compared with LiteLLM with fast_litellm."


def _rows(section: dict[str, Any]) -> Iterable[Sequence[str]]:
    yield "", "", f"median {section['unit']}", "p95", "p99", "/ ours", "", ""
    last = None
    for row in section["rows"]:
        case = "" if row["case"] == last else row["case"]
        last = row["case"]
        label = LABELS[row["contender"]]
        if row["absent"]:
            yield case, label, "-", "", "", "", "", row["absent"]
            continue
        figures = (number(row[key]) for key in ("median", "p95", "p99"))
        yield case, label, *figures, ratio(row["ratio"]), mark(row), judged(row)


def _instruction_rows(rows: Sequence[dict[str, Any]]) -> Iterable[Sequence[str]]:
    yield "", "instructions", "more", "times", "", ""
    for row in rows:
        if row["absent"]:
            yield row["case"], "-", "", "", "", row["absent"]
            continue
        more = "" if row["extra"] is None else f"{row['extra']:+,.0f}"
        against = row["against"] and f"than {row['against']}"
        counted = number(row["instructions"])
        yield row["case"], counted, more, ratio(row["ratio"]), mark(row), against


def _claims(report: dict[str, Any]) -> Iterable[str]:
    rows: list[Sequence[str]] = [("", "claimed", "published", "ours", "ours / lean Python")]
    for name, claimed, section, case in CLAIMS:
        found = {
            row["contender"]: row["median"]
            for row in report["sections"].get(section, {}).get("rows", ())
            if row["case"] == case
        }
        baseline = found.get("python_reference") or found.get("python")
        if baseline:
            times = (
                ratio(_over(baseline, found.get("published"))),
                ratio(_over(baseline, found.get("ours"))),
                ratio(_over(found.get("python"), found.get("ours"))),
            )
            if any(times):
                rows.append((name, ratio(claimed), *times))
    if len(rows) > 1:
        yield ""
        yield "What the reference claims over Python of its kind, and this run: more is better"
        yield from _aligned(rows, numbers=(1, 2, 3, 4))


def _losses(report: dict[str, Any]) -> Iterable[str]:
    compared = [
        (section["title"].partition(":")[0], row)
        for section in report["sections"].values()
        for row in section["rows"]
        if row["ratio"] is not None
    ]
    lost = [(title, row) for title, row in compared if row["we_lose"]]
    yield ""
    if not compared:
        yield "Nothing was compared."
    else:
        yield f"We lose in {len(lost)} of {len(compared)} lines{':' if lost else '.'}"
    for title, row in lost:
        who = LABELS.get(row.get("contender", ""), row["against"])
        wrong = ", whose answers are wrong" if row.get("holds") is False else ""
        yield f"  {title}: {row['case']}: {ratio(row['ratio'])} of {who}{wrong}"


def _over(theirs: float | None, ours: float | None) -> float | None:
    return theirs / ours if theirs is not None and ours else None


def mark(row: dict[str, Any]) -> str:
    """Who is better, where that is not ours."""
    return LOST if row["we_lose"] else ""


def judged(row: dict[str, Any]) -> str:
    """What a contender did of what it is timed for."""
    says = row["says"] + _in_all(row["notes"] or {})
    says = says if row["holds"] is not False else f"{WRONG}: {says}"
    if row["odd"] > row["samples"] // 50:
        says += f"; {row['odd']} of {row['samples']} batches ended with another answer"
    return says


def _in_all(notes: dict[str, float]) -> str:
    """Where the memory of all keys is."""
    if "pss_bytes" not in notes:
        return ""
    in_all, made = (f"{notes[key] / 1e6:.2f}" for key in ("pss_bytes", "made_bytes"))
    region = notes.get("region_bytes")
    shared = f", {region / 1e6:.2f} MB in the region" if region else ""
    return f"; {in_all} MB in all, {made} MB before the first key{shared}"


def ratio(value: float | None) -> str:
    """So many times."""
    if value is None:
        return ""
    if value < 0.1:
        return f"{value:.3f}x"
    return f"{value:.2f}x" if value < 10 else f"{value:,.0f}x"


def number(value: float | None) -> str:
    """A figure with three digits that count."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _aligned(rows: Iterable[Sequence[str]], numbers: Sequence[int]) -> Iterable[str]:
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        yield ("  " + "  ".join(cells)).rstrip()
