"""Batches of texts, by one thread and by two: wall time, and CPU time of all threads."""

from __future__ import annotations

import random
import statistics
from typing import Any

from benchmarks.contender_process import BrokenError, MissingError
from benchmarks.counting import texts
from benchmarks.counting.turns import Sides

#: Who has batches, and may be told how many threads to use.
SIDES = ("ours", "tiktoken", "toktok")
OPERATIONS = ("count", "ids")
THREADS = (1, 2)
ROUNDS = 9
SPAN_NS = 40_000_000


def measure(sides: Sides, encoding: str, quick: bool, draw: random.Random) -> list[dict[str, Any]]:
    """Everybody in turns.

    Returns:
        For each side, operation and number of threads: medians `wall_ns` and `cpu_ns` of one batch;
        None = there is no such operation.
    """
    count, length = (8, 2_000) if quick else (64, 20_000)
    cases = {
        f"{count} texts of {length:,}": texts.documents("English", count, length),
        f"one text of {count * length:,}": [texts.text_of("English", count * length)],
    }
    rows: list[dict[str, Any]] = []
    for case, batch in cases.items():
        sides.note(f"{encoding}, batch: {case}")
        path = sides.file(batch)
        turns: dict[tuple[str, str, int], list[dict[str, Any]]] = {
            (side, operation, threads): []
            for side in SIDES
            if side in sides.versions
            for operation in OPERATIONS
            for threads in THREADS
        }
        for _ in range(2 if quick else ROUNDS):
            order = list(turns)
            draw.shuffle(order)
            for side, operation, threads in order:
                try:
                    asked = ("batch", encoding, operation, path, threads, SPAN_NS)
                    turns[side, operation, threads].append(sides.ask(side, *asked))
                except (MissingError, BrokenError):
                    continue
        for (side, operation, threads), found in turns.items():
            row = {"encoding": encoding, "batch": case, "side": side, "operation": operation}
            row["threads"] = threads
            for key in ("wall_ns", "cpu_ns"):
                row[key] = statistics.median(each[key] for each in found) if found else None
            rows.append(row)
    return rows
