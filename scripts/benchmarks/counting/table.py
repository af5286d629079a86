"""Markdown of a report as it is written to JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

#: What ways are called.
LABELS = {
    "ours": "fast_litellm",
    "ours_encode": "fast_litellm",
    "ours_counter": "SimpleTokenCounter",
    "tiktoken": "tiktoken",
    "tiktoken_encode": "tiktoken",
    "litellm_ours": "with fast_litellm",
    "litellm": "LiteLLM",
    "native": "LiteLLM native",
    "native_fast": "native, fast",
    "native_encode": "LiteLLM native",
    "published": "published",
    "gigatoken": "gigatoken",
    "gigatoken_list": "gigatoken",
    "fastokens": "fastokens",
    "fastokens_list": "fastokens",
    "toktok": "toktok",
    "toktok_list": "toktok",
}

#: Ours of each operation, and whom it is set beside.
OURS = {"count": "ours", "ids": "ours_encode", "token_counter": "litellm_ours"}
BESIDE = {
    "count": ("tiktoken", "gigatoken"),
    "ids": ("tiktoken_encode", "gigatoken_list"),
    "token_counter": ("litellm",),
}
TITLES = {
    "count": "Counting",
    "ids": "Ids as a list",
    "token_counter": "LiteLLM's `token_counter`",
}
OWN = ("ours", "ours_encode", "ours_counter", "litellm_ours")


def text(report: dict[str, Any]) -> str:
    """The whole report."""
    parts = [
        _head(report),
        _exactness(report["exact"]),
        *_cells(report["cells"], ", the same text again and again"),
        *_cells(report["worst"], ", each text once"),
        _start(report["start"]),
        _memory(report["memory"]),
        _batches(report["batches"]),
        _losses([*report["cells"], *report["worst"]]),
    ]
    return "\n\n".join("\n".join(lines) for lines in map(list, parts) if lines)


def losses(cells: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each of ours and who was quicker at the same text and operation."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for cell in cells:
        if cell["median_ns"] is not None:
            key = tuple(cell[name] for name in ("encoding", "kind", "length", "operation"))
            groups.setdefault(key, []).append(cell)
    return [
        (mine, other)
        for group in groups.values()
        for mine in group
        for other in group
        if mine["way"] in OWN and other["way"] not in OWN
        if other["median_ns"] < mine["median_ns"]
    ]


def _head(report: dict[str, Any]) -> Iterable[str]:
    machine = report["machine"]
    yield (
        f"{machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}; load before "
        f"{machine['load_before'][0]:.2f}, after {machine['load_after'][0]:.2f}; "
        f"up to {report['rounds']} turns each, in an order drawn for each round (seed {report['seed']})."
    )
    yield ""
    yield from table(
        [["side", "version, or why it is not there"]]
        + [[side, found["version"] or found["absent"]] for side, found in report["sides"].items()]
    )
    for where, reason in report["left_out"].items():
        if "," in where:
            yield f"Not there: {where}: {reason}"


def _exactness(exact: dict[str, dict[str, Any]]) -> Iterable[str]:
    rows = [["", "way", "texts", "compared", "differ", ""]]
    for encoding, ways in exact.items():
        for way, found in ways.items():
            judged = "exact" if not found["differ"] else f"**NOT exact**: {found['first']}"
            differ = str(found["differ"])
            rows.append([encoding, way, str(found["texts"]), found["by"], differ, judged])
    if len(rows) > 1:
        yield "### Compared with tiktoken"
        yield ""
        yield from table(rows)


def _cells(cells: Sequence[dict[str, Any]], how: str) -> Iterable[Iterable[str]]:
    for operation, title in TITLES.items():
        for encoding in dict.fromkeys(cell["encoding"] for cell in cells):
            some = [
                cell
                for cell in cells
                if (cell["encoding"], cell["operation"]) == (encoding, operation)
            ]
            if some:
                yield _grid(f"### {title}, {encoding}{how}: microseconds of CPU time, median", some)


def _grid(title: str, cells: Sequence[dict[str, Any]]) -> Iterable[str]:
    operation = cells[0]["operation"]
    ways = [way for way in LABELS if any(cell["way"] == way for cell in cells)]
    beside = [way for way in BESIDE[operation] if way in ways]
    mine = OURS[operation]
    head = ["text", "characters", *(LABELS[way] for way in ways)]
    rows = [[*head, *(f"{LABELS[way]} / ours" for way in beside), "we lose to"]]
    rights = _rights(cells)
    for kind, length in dict.fromkeys((cell["kind"], cell["length"]) for cell in cells):
        found = {
            cell["way"]: cell for cell in cells if (cell["kind"], cell["length"]) == (kind, length)
        }
        medians = {way: cell["median_ns"] for way, cell in found.items()}
        ours = medians.get(mine)
        quicker = {
            way: ours / value
            for way, value in medians.items()
            if ours and value and value < ours and way not in OWN
        }
        row = [kind, f"{length:,}"]
        for way in ways:
            shown = _shown(found.get(way), rights.get((kind, length)))
            row.append(f"**{shown}**" if way in quicker else shown)
        row += [ratio(medians[way], ours) for way in beside]
        row.append(", ".join(f"{LABELS[way]} {times:.2f}x" for way, times in quicker.items()))
        rows.append(row)
    yield title
    yield ""
    yield from table(rows, numbers=range(1, len(rows[0]) - 1))
    reasons = {
        (LABELS[cell["way"]], cell["kind"], cell["length"]): cell["absent"] for cell in cells
    }
    if any(reasons.values()):
        yield ""
    for (label, kind, length), reason in reasons.items():
        if reason:
            yield f"* {label}, {kind}, {length:,}: {reason}"


def _rights(cells: Sequence[dict[str, Any]]) -> dict[tuple[str, int], int]:
    judges = ("tiktoken", "tiktoken_encode", "litellm")
    return {
        (cell["kind"], cell["length"]): cell["count"]
        for cell in cells
        if cell["way"] in judges and cell["count"] is not None
    }


def _shown(cell: dict[str, Any] | None, right: int | None) -> str:
    if cell is None or cell["median_ns"] is None:
        return "-"
    wrong = " W" if right is not None and cell["count"] != right else ""
    return micro(cell["median_ns"]) + wrong


def _start(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    there = [row for row in rows if "load_cpu_ms" in row]
    if not rows:
        return
    kinds = list(there[0]["mb_per_s"]) if there else []
    head = ["", "side", "load, CPU ms", "load, ms", "private MiB", "threads started"]
    shown = [[*head, *(f"{kind}, MB/s" for kind in kinds)]]
    for row in there:
        ours = _of_ours(there, row["encoding"])
        speeds, our_speeds = row["mb_per_s"], ours.get("mb_per_s", {})
        shown.append(
            [
                row["encoding"],
                row["side"],
                _bold(f"{row['load_cpu_ms']:.1f}", _less(row, ours, "load_cpu_ms")),
                f"{row['load_wall_ms']:.1f}",
                _bold(f"{row['private_bytes'] / 2**20:.1f}", _less(row, ours, "private_bytes")),
                str(row["threads"] - 1),
                *(
                    _bold(f"{speeds.get(kind, 0):.0f}", _less(our_speeds, speeds, kind))
                    for kind in kinds
                ),
            ]
        )
    yield "### New processes: an encoding is loaded, then texts of 2,000 characters are counted once each"
    yield ""
    yield from table(shown, numbers=range(2, len(shown[0])))
    yield from _absences(rows)


def _absences(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    for row in rows:
        if row["absent"]:
            yield f"* {row['side']}, {row['encoding']}: {row['absent']}"


def _memory(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    if not rows:
        return
    shown = [
        ["", "side", "before the fork: private MiB", "PSS", "in each worker: private MiB", "PSS"]
    ]
    for row in rows:
        ours = _of_ours(rows, row["encoding"])
        values = [
            _bold(f"{row[when][key] / 2**20:.2f}", _less(row[when], ours.get(when, {}), key))
            if when in row
            else "-"
            for when in ("before", "after")
            for key in ("private", "pss")
        ]
        shown.append([row["encoding"], row["side"], *values])
    yield "### Memory that counting adds to each of four forked workers, by where the tables are loaded"
    yield ""
    yield from table(shown, numbers=range(2, 6))
    yield from _absences(rows)


def _batches(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    if not rows:
        return
    shown = [["", "batch", "side", "operation", "threads", "ms", "CPU ms"]]
    for row in rows:
        values = [f"{row[key] / 1e6:.2f}" if row[key] else "-" for key in ("wall_ns", "cpu_ns")]
        names = [row["encoding"], row["batch"], row["side"], row["operation"], str(row["threads"])]
        shown.append([*names, *values])
    yield "### Batches, by threads"
    yield ""
    yield from table(shown, numbers=(4, 5, 6))


def _losses(cells: Sequence[dict[str, Any]]) -> Iterable[str]:
    found = losses(cells)
    compared = sum(cell["median_ns"] is not None and cell["way"] not in OWN for cell in cells)
    better = len({id(other) for _, other in found})
    yield f"Of {compared} figures of others, {better} are better than one of ours:"
    yield ""
    beaten: dict[tuple[str, str], list[str]] = {}
    for mine, other in found:
        times = mine["median_ns"] / other["median_ns"]
        where = f"{mine['encoding']} {mine['kind']} {mine['length']:,} ({times:.2f}x)"
        beaten.setdefault((mine["way"], other["way"]), []).append(where)
    for (mine_way, other_way), places in beaten.items():
        yield f"* `{mine_way}` is slower than `{other_way}`: {'; '.join(places)}"


def _of_ours(rows: Sequence[dict[str, Any]], encoding: str) -> dict[str, Any]:
    found = (row for row in rows if (row["side"], row["encoding"]) == ("ours", encoding))
    return next(found, {})


def _less(one: dict[str, Any], other: dict[str, Any], key: str) -> bool:
    return key in one and key in other and one[key] < other[key]


def _bold(text: str, better: bool) -> str:
    return f"**{text}**" if better else text


def micro(nanoseconds: float) -> str:
    """Microseconds with three digits that count."""
    value = nanoseconds / 1e3
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def ratio(theirs: float | None, ours: float | None) -> str:
    """So many times what ours takes."""
    if not theirs or not ours:
        return "-"
    return f"{theirs / ours:.2f}" if theirs < 10 * ours else f"{theirs / ours:,.1f}"


def table(rows: Sequence[Sequence[str]], numbers: Iterable[int] = ()) -> Iterable[str]:
    """A Markdown table; the first row is its head, `numbers` are columns to align to the right."""
    right = set(numbers)
    lines = [list(row) for row in rows]
    rule = ["---:" if place in right else "---" for place in range(len(lines[0]))]
    for line in (lines[0], rule, *lines[1:]):
        yield f"| {' | '.join(line)} |"
